// Puts the codes and scales of a compressed-tensors matrix on a grid as they
// are, and says what could not stay.
#ifndef SERVICES_EXPORTER_CT_ENCODE_H_
#define SERVICES_EXPORTER_CT_ENCODE_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/exporter/grid_encode.h"
#include "services/model/ct_matrix.h"

namespace onegrid::exporter {

// Which scales a matrix may keep.
enum class ScaleRule {
  kDualExact,  // linears: they are written to both formats
  kF16,        // the embedding: compressed-tensors gets its values in f32
};

// The grid has the matrix's bits, and a scale of the file is that of all the
// grid's groups it covers: 8 bits go to int8_g32, 4 bits to int4_g32, ternary
// codes of 2 bits to int2_g64; 2 bits with a code -2, or in groups of 32, to
// int4_g32, which has all four codes. In a group
// - codes and scale stay, if the grid has both;
// - else a negative scale becomes positive, if the grid has the negated codes,
//   and any scale of 32 zeros the smallest: the values stay;
// - else the codes stay and the scale moves to the nearest dual-exact one, by
//   0.4 % at most (recovery.snapped);
// - else, with a code that the grid lacks or a scale out of range, the values
//   are encoded by quant::EncodeMatrix (recovery.fallback).
// recovery.on_grid counts the groups whose codes stayed.
//
// INVALID_ARGUMENT (UNSUPPORTED_TENSOR), naming the tensor: the file's groups
// are not whole groups of the grid, or a value the grid cannot reach.
absl::StatusOr<GridEncoding> EncodeCt(absl::string_view name,
                                      const model::CtMatrix& matrix,
                                      ScaleRule rule);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_CT_ENCODE_H_
