"""Writes the goldens of kernels/quant from the formats' own Python packages.

Run: python3 kernels/quant/testdata/make_goldens.py kernels/quant/testdata LIB
LIB is llama.cpp's libggml-base.so, which knows Q2_0; the Python package does
not. See README.md beside this file for the versions and the meaning of each file.
"""

import ctypes
import pathlib
import sys

from compressed_tensors.compressors.pack_quantized import helpers
import gguf
import numpy as np
import torch

SEED = 20240611
BLOCKS = 12
Type = gguf.GGMLQuantizationType

# type -> byte offsets of the f16 values in a block.
F16_FIELDS = {
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q8_0: [0],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
}


# The same of the types that were added later: their goldens are made last, so
# that those before them stay as they are.
MORE_F16_FIELDS = {
    Type.Q2_K: [80, 82],
    Type.Q3_K: [108],
    Type.IQ4_NL: [0],
    Type.IQ4_XS: [0],
    Type.TQ1_0: [52],
    Type.TQ2_0: [64],
}
# Where their blocks hold the integer scales of parts of a block.
SCALE_CODES = {
    Type.Q2_K: slice(0, 16),
    Type.Q3_K: slice(96, 108),
    Type.IQ4_XS: slice(2, 8),
}
# Of MXFP4: the two exponents below f32's normal numbers, the least normal one,
# 1/2, 1, the largest and the one that the format itself calls a NaN.
MXFP4_EXPONENTS = [0, 1, 2, 127, 128, 254, 255]


def random_blocks(rng, kind):
  """Random bytes with finite f16 fields: both signs, subnormal ones, a zero."""
  _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
  blocks = rng.integers(0, 256, (BLOCKS, block_bytes), dtype=np.uint8)
  for offset in F16_FIELDS[kind]:
    scales = rng.normal(0, 0.02, BLOCKS).astype(np.float16)
    scales[0] = 0
    scales[1] = 3e-6
    scales[2] = -1.5
    blocks[:, offset:offset + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
  return blocks


def decode_goldens(rng, out):
  for kind in F16_FIELDS:
    write_decoded(out, kind, random_blocks(rng, kind))


def write_decoded(out, kind, blocks):
  values = gguf.dequantize(blocks, kind).astype('<f4')
  name = kind.name.lower()
  (out / f'{name}.blocks').write_bytes(blocks.tobytes())
  (out / f'{name}.values').write_bytes(values.tobytes())


def more_decode_goldens(rng, out, ggml):
  """The later types; llama.cpp's C must give the same bits as the package."""
  for kind, fields in MORE_F16_FIELDS.items():
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (BLOCKS, block_bytes), dtype=np.uint8)
    for offset in fields:
      scales = rng.normal(0, 0.02, BLOCKS).astype(np.float16)
      scales[:6] = 0, 3e-6, -1.5, -6e-8, 65504, -0.0
      blocks[:, offset:offset + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
    if len(fields) == 2:  # A scale of zero beside a minimum, and the reverse.
      blocks[-1, fields[0]:fields[0] + 2] = 0
      blocks[-2, fields[1]:fields[1] + 2] = 0
    if kind in SCALE_CODES:  # The least and the greatest code of every scale.
      blocks[6, SCALE_CODES[kind]] = 0
      blocks[7, SCALE_CODES[kind]] = 255
    check_with_ggml(ggml, kind, blocks)
    write_decoded(out, kind, blocks)
  blocks = rng.integers(0, 256, (BLOCKS, 17), dtype=np.uint8)
  blocks[:len(MXFP4_EXPONENTS), 0] = MXFP4_EXPONENTS
  check_with_ggml(ggml, Type.MXFP4, blocks)
  write_decoded(out, Type.MXFP4, blocks)


def check_with_ggml(ggml, kind, blocks):
  """Exits if llama.cpp decodes the blocks to other bits than the package."""
  name = kind.name.lower().replace('_k', '_K')
  values = gguf.dequantize(blocks, kind)
  found = np.zeros_like(values)
  decode = getattr(ggml, f'dequantize_row_{name}')
  decode.argtypes = [
      ctypes.c_void_p, ctypes.POINTER(ctypes.c_float), ctypes.c_int64
  ]
  decode(blocks.ctypes.data, found.ctypes.data_as(decode.argtypes[1]),
         values.size)
  different = int((found.view(np.uint32) != values.view(np.uint32)).sum())
  print(f'{kind.name}: {values.size} values, {different} differ in llama.cpp')
  if different:
    sys.exit(1)


def encode_goldens(rng, out):
  """Rows of several magnitudes, with zeros, ties and equal extremes."""
  w = rng.normal(0, 1, (24, 128)).astype(np.float32)
  w *= np.logspace(-5, 2, 24, dtype=np.float32)[:, None]
  w[3, 32:64] = 0
  w[4] = np.tile(np.arange(-8, 8, dtype=np.float32) / 16, 8)
  w[5] = np.tile(np.float32([1, -1, 0.5, -0.5]), 32)
  w[6] = np.tile(np.arange(-16, 16, dtype=np.float32) / 4, 4)
  w[7, :32] = -np.abs(w[7, :32])
  (out / 'encode.weights').write_bytes(w.astype('<f4').tobytes())
  for kind in (Type.Q4_0, Type.Q8_0):
    (out / f'encode.{kind.name.lower()}').write_bytes(
        gguf.quantize(w, kind).tobytes())


def compressed_tensors_goldens(rng, out):
  for rows, cols in ((9, 96), (5, 43)):
    codes = rng.integers(-8, 8, (rows, cols)).astype(np.int8)
    words = helpers.pack_to_int32(torch.from_numpy(codes), 4)
    name = f'ct_{rows}x{cols}'
    (out / f'{name}.codes').write_bytes(codes.tobytes())
    (out / f'{name}.words').write_bytes(
        words.numpy().astype('<i4').tobytes())


def more_compressed_tensors_goldens(rng, out):
  for bits in (2, 8):
    for rows, cols in ((9, 96), (5, 43)):
      limit = 1 << (bits - 1)
      codes = rng.integers(-limit, limit, (rows, cols)).astype(np.int8)
      words = helpers.pack_to_int32(torch.from_numpy(codes), bits)
      name = f'ct{bits}_{rows}x{cols}'
      (out / f'{name}.codes').write_bytes(codes.tobytes())
      (out / f'{name}.words').write_bytes(
          words.numpy().astype('<i4').tobytes())


def q2_0_goldens(rng, out, ggml):
  """Random blocks and their values; ternary weights and their blocks."""
  floats, void = ctypes.POINTER(ctypes.c_float), ctypes.c_void_p
  ggml.dequantize_row_q2_0.argtypes = [void, floats, ctypes.c_int64]
  ggml.quantize_row_q2_0_ref.argtypes = [floats, void, ctypes.c_int64]
  blocks = rng.integers(0, 256, (BLOCKS, 18), dtype=np.uint8)
  scales = rng.normal(0, 0.02, BLOCKS).astype(np.float16)
  scales[:3] = 0, 3e-6, -1.5
  blocks[:, :2] = scales.view(np.uint8).reshape(BLOCKS, 2)
  values = np.zeros((BLOCKS, 64), dtype=np.float32)
  ggml.dequantize_row_q2_0(blocks.ctypes.data, values.ctypes.data_as(floats),
                           values.size)
  (out / 'q2_0.blocks').write_bytes(blocks.tobytes())
  (out / 'q2_0.values').write_bytes(values.astype('<f4').tobytes())

  # Scales of at most 8 significant bits, exact in f16 and bf16.
  scales = rng.integers(128, 256, (24, 1)) * 2.0**rng.integers(-21, 8, (24, 1))
  weights = (rng.integers(-1, 2, (24, 64)) * scales).astype(np.float32)
  blocks = np.zeros((24, 18), dtype=np.uint8)
  ggml.quantize_row_q2_0_ref(weights.ctypes.data_as(floats),
                             blocks.ctypes.data, weights.size)
  (out / 'encode_q2_0.values').write_bytes(weights.astype('<f4').tobytes())
  (out / 'encode_q2_0.blocks').write_bytes(blocks.tobytes())


def main():
  out = pathlib.Path(sys.argv[1])
  rng = np.random.default_rng(SEED)
  decode_goldens(rng, out)
  encode_goldens(rng, out)
  compressed_tensors_goldens(rng, out)
  more_compressed_tensors_goldens(rng, out)
  ggml = ctypes.CDLL(sys.argv[2])
  q2_0_goldens(rng, out, ggml)
  more_decode_goldens(rng, out, ggml)


if __name__ == '__main__':
  main()
