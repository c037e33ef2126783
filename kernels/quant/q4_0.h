#ifndef KERNELS_QUANT_Q4_0_H_
#define KERNELS_QUANT_Q4_0_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"

// GGUF Q4_0: blocks of 32 elements along a row, 18 bytes each:
//   bytes 0..1  d, f16 little-endian
//   byte 2 + j  low nibble: code of element j, plus 8; high nibble: of j + 16
// Element = (nibble - 8) * d.
namespace onegrid::quant {

inline constexpr int64_t kQ4_0BlockBytes = 18;

// The matrix as rows of Q4_0 blocks, codes and scales unchanged.
// InvalidArgument: an invalid matrix, or a scale that f16 does not hold exactly
// (the message names row and group).
absl::StatusOr<std::vector<uint8_t>> PackQ4_0(const GridMatrix& matrix);

// The codes and scales of a file's blocks, unchanged: scales may be negative,
// zero or not dual-exact. InvalidArgument: cols is not a multiple of 32, the
// byte count does not fit, or a scale is infinite or NaN.
absl::StatusOr<GridMatrix> UnpackQ4_0(absl::Span<const uint8_t> blocks,
                                      int64_t rows, int64_t cols);

// w [rows, cols] by ggml's reference rule (quantize_row_q4_0_ref), bit for bit:
// d = (the weight of largest magnitude) / -8, so d may be negative.
// InvalidArgument: sizes as in UnpackQ4_0, a NaN or infinite weight, or a d
// beyond f16.
absl::StatusOr<std::vector<uint8_t>> EncodeQ4_0(absl::Span<const float> w,
                                                int64_t rows, int64_t cols);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_Q4_0_H_
