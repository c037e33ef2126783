// Encodes one source tensor on a grid and says what that changed.
#ifndef SERVICES_EXPORTER_GRID_ENCODE_H_
#define SERVICES_EXPORTER_GRID_ENCODE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"
#include "kernels/quant/grid_recovery.h"
#include "services/model/gguf_reader.h"
#include "services/model/tensor_names.h"

namespace onegrid::exporter {

// The grid an import puts a linear on: int4_g32, but int8_g32 for the one
// outside all layers, which no checkpoint has in 4 bits.
const quant::Grid& BaseGrid(const model::LinearSpec& spec);

struct GridEncoding {
  quant::GridMatrix matrix;  // [rows, cols] of the tensor
  int64_t groups = 0;
  // Groups whose values the grid holds without any change.
  int64_t groups_kept = 0;
  // Sums over the tensor of (w' - w)^2 and w^2.
  double error_squares = 0;
  double weight_squares = 0;
  // Of float weights: groups on a lattice, zero and encoded afresh. All 0 for
  // tensors of other types.
  quant::RecoveryCounts recovery;
};

// Puts float weights [rows, cols] on the grid with up to `threads` threads: on
// int4_g32, groups that lie on a lattice keep its codes (quant::RecoverMatrix).
// INVALID_ARGUMENT (UNSUPPORTED_TENSOR), naming the tensor: cols not a multiple
// of the group, a value not finite or too large.
absl::StatusOr<GridEncoding> EncodeFloats(absl::string_view name,
                                          absl::Span<const float> values,
                                          int64_t rows, int64_t cols,
                                          const quant::Grid& grid, int threads);

// Puts rows [begin, end) of `tensor` (of rows and columns, any type
// kernels/quant decodes) on the grid with up to `threads` threads. Float types
// as EncodeFloats. A Q4_0 group that has a dual-exact scale and can have a
// positive one keeps its codes and scale on int4_g32; other groups get
// quant::EncodeMatrix's. INVALID_ARGUMENT: rows not a multiple of the group, a
// value not finite.
absl::StatusOr<GridEncoding> EncodeOnGrid(const model::GgufFile::Tensor& tensor,
                                          int64_t begin, int64_t end,
                                          const quant::Grid& grid, int threads);

// INVALID_ARGUMENT, naming tensor and index, if a value is NaN or infinite.
absl::Status CheckFinite(absl::string_view name,
                         absl::Span<const float> values);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_GRID_ENCODE_H_
