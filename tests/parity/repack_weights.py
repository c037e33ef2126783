#!/usr/bin/env python3
"""Compares the codes and scales of a model before and after a repack.

  repack_weights.py --before MODEL --after MODEL --node DIR [--report FILE]
      [--float_matrices]

A model is a GGUF, read by node-llama-cpp's ggml, or a compressed-tensors
folder. Every group of 32 whose scale is dual-exact (in the embedding: any) and
whose codes its grid has must come back with both, bit for bit; norms, and
matrices in floats, as the same values. The embedding goes through floats: it
must come back on its grid, and a group's codes may be others if the values are
the same. --float_matrices says that matrices in floats were never on a grid, so
that the import had to round them. --report is what the import printed: the
packed matrices with other groups must be those in tensors_off_grid, with as
many groups. The last line gives the figure and the target.
"""

import argparse
import json
import os
import sys

import numpy as np
from ggml_file import library
from gguf_names import gguf_name
from grid_matrices import RANGES, dual_exact, folder_matrices, gguf_matrices

UNIT = 32
EMBEDDING = "token_embd.weight"


class Matrix:
    """Codes [units, 32] and the scale of each unit."""

    def __init__(self, codes, scales, grid):
        self.codes = codes.reshape(-1, UNIT)
        self.scales = np.repeat(scales, len(self.codes) // len(scales))
        self.group = len(codes) // len(scales)
        self.grid = grid

    def held(self, any_scale):
        """Units that the grid has, and those that are not 0 of the others."""
        low, high, _ = RANGES[self.grid]
        codes = self.codes.astype(np.int16)
        held = (codes >= low).all(1) & (codes <= high).all(1)
        held &= dual_exact(self.scales) | any_scale
        return held, ~held & (codes != 0).any(1)

    def values(self):
        return self.codes.astype(np.float32) * self.scales[:, None]


def grid_of(bits, codes, group):
    if bits == 2:
        ternary = codes.min() >= -1 and group % 64 == 0
        return "int2_g64" if ternary else "int4_g32"
    return {4: "int4_g32", 8: "int8_g32"}[bits]


def read(path, node):
    """(name -> Matrix, name -> float32), by GGUF name and convention."""
    if not os.path.isdir(path):
        matrices, vectors = gguf_matrices(library(node), path)
        return {name: Matrix(codes, scales, grid)
                for name, (grid, codes, scales) in matrices.items()}, vectors
    packed, rest = folder_matrices(path)
    matrices = {}
    for module, (bits, codes, scales) in packed.items():
        grid = grid_of(bits, codes, len(codes) // len(scales))
        name = gguf_name(module + ".weight")
        matrices[name] = Matrix(codes, scales, grid)
    return matrices, {
        gguf_name(name): 1 + values if name.endswith("norm.weight") else values
        for name, values in rest.items()}


def compare_matrix(name, before, after):
    """(units held, those of them that are the same, those that are the same but
    for the codes of equal values, other units)"""
    # The embedding keeps every scale that f16 holds.
    held, others = before.held(name == EMBEDDING)
    same = (before.codes == after.codes).all(1)
    same &= before.scales == after.scales
    equal = np.zeros(len(same), bool)
    if name == EMBEDDING and before.grid == after.grid:
        # In compressed-tensors there are floats in between; a group of one
        # magnitude is on more than one lattice.
        equal = (before.values() == after.values()).all(1) & ~same
        same |= equal
    same &= held
    if (same != held).any():
        print(f"differs: {name}: {held.sum() - same.sum()} groups")
    if others.any():
        error = np.abs(before.values() - after.values()).max(1)
        largest = np.abs(before.values()).max(1)
        moved = (before.codes == after.codes).all(1)
        print(f"not on the grid: {name}: {others.sum()} groups, of which "
              f"{(others & moved).sum()} keep their codes; values move by "
              f"{(error[others] / largest[others]).max():.4f} of the largest "
              "at most")
    return int(held.sum()), int(same.sum()), int(equal.sum()), others


def compare_rest(before, after, matrices, float_matrices):
    """(tensors, those that are the same)"""
    total = same = 0
    for name, values in before.items():
        found = after.get(name)
        if found is None and name in matrices:
            found = matrices[name].values().reshape(values.shape)
        if float_matrices and values.ndim == 2:
            error = np.sqrt(((found - values) ** 2).sum() / (values**2).sum())
            print(f"in floats, rounded by {error:.4f} (relative RMS): {name}")
            continue
        total += 1
        if found is not None and np.array_equal(found, values):
            same += 1
        else:
            print(f"differs: {name}")
    return total, same


def check_report(path, off_grid, before):
    """Whether the import's report names the matrices that are off the grid."""
    with open(path, encoding="utf-8") as file:
        report = json.load(file)
    named = {t["tensor"]: int(t["groups_snapped"]) + int(t["groups_fallback"])
             for t in report["tensors_off_grid"]}
    expected = {}
    for name, others in off_grid.items():
        units = RANGES[before[name].grid][2] // UNIT
        count = int(others.reshape(-1, units).any(1).sum())
        if count > 0:
            expected[name] = count
    if named != expected:
        print("the report names", named, "expected", expected)
    return named == expected


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("before", "after", "node"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--report")
    parser.add_argument("--float_matrices", action="store_true")
    args = parser.parse_args()

    before, vectors = read(args.before, args.node)
    after, other_vectors = read(args.after, args.node)
    names = sorted(before.keys() & after.keys())
    total = same = equal = 0
    off_grid = {}
    for name in names:
        held, kept, alike, off_grid[name] = compare_matrix(
            name, before[name], after[name])
        total += held
        same += kept
        equal += alike
    good = same == total and len(names) == len(before) and total > 0
    tensors, same_tensors = compare_rest(
        vectors, other_vectors, after, args.float_matrices)
    good = good and tensors == same_tensors
    if args.report:
        good = check_report(args.report, off_grid, before) and good
    others = {name: int(mask.sum()) for name, mask in off_grid.items()
              if mask.any()}
    named = ", all named" if args.report else ""
    alike = f" ({equal} as other codes of the same values)" if equal else ""
    print(f"{same} of {total} groups of {len(names)} matrices{alike} and "
          f"{same_tensors} of {tensors} other tensors bit for bit; "
          f"{sum(others.values())} groups of {len(others)} matrices are not on "
          f"the grid{named if good else ''} (target {total}, {tensors})")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
