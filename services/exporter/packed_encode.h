// Puts the codes and scales of a packed matrix on a grid as they are, and says
// what could not stay.
#ifndef SERVICES_EXPORTER_PACKED_ENCODE_H_
#define SERVICES_EXPORTER_PACKED_ENCODE_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/exporter/grid_encode.h"
#include "services/model/packed_matrix.h"

namespace onegrid::exporter {

// Which scales a matrix may keep.
enum class ScaleRule {
  kDualExact,  // linears: they are written to both formats
  kF16,        // tables: compressed-tensors gets their values in f32
};

// Rows of a matrix on its model::GridOfPacked. A scale of the file is that of
// all the grid's groups it covers. In a group
// - codes and scale stay, if the grid has both;
// - else a negative scale becomes positive, if the grid has the negated codes,
//   and any scale of 32 zeros the smallest: the values stay;
// - else the codes stay and the scale moves to the nearest that the rule has,
// by
//   0.4 % at most, mostly by less than 0.05 % with kF16 (recovery.snapped);
// - else, with a code that the grid lacks or a scale out of range, the values
//   are encoded by quant::EncodeMatrix (recovery.fallback).
// recovery.on_grid counts the groups whose codes stayed.
//
// INVALID_ARGUMENT (UNSUPPORTED_TENSOR), naming the tensor: the file's groups
// are not whole groups of the grid, or a value the grid cannot reach.
absl::StatusOr<GridEncoding> EncodePacked(absl::string_view name,
                                          const model::PackedMatrix& matrix,
                                          const quant::Grid& grid,
                                          ScaleRule rule);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_PACKED_ENCODE_H_
