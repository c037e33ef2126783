#ifndef KERNELS_QUANT_Q8_0_H_
#define KERNELS_QUANT_Q8_0_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"

// GGUF Q8_0: blocks of 32 elements along a row, 34 bytes each:
//   bytes 0..1   d, f16 little-endian
//   byte 2 + j   code of element j, int8
// Element = code * d.
namespace onegrid::quant {

inline constexpr int64_t kQ8_0BlockBytes = 34;

// The matrix, on int8_g32, as rows of Q8_0 blocks, codes and scales unchanged.
// InvalidArgument: vectors that do not fit the sizes, or a scale that f16 does
// not hold exactly.
absl::StatusOr<std::vector<uint8_t>> PackQ8_0(const GridMatrix& matrix);

// The inverse. InvalidArgument: cols is not a multiple of 32, the byte count
// does not fit, or a scale is infinite or NaN. Scales need not be dual-exact,
// and a file may hold the code -128.
absl::StatusOr<GridMatrix> UnpackQ8_0(absl::Span<const uint8_t> blocks,
                                      int64_t rows, int64_t cols);

// w [rows, cols] by ggml's reference rule (quantize_row_q8_0_ref), bit for bit:
// d = amax / 127, codes round half away from zero.
// InvalidArgument: sizes as in UnpackQ8_0, a NaN or infinite weight, or a d
// beyond f16.
absl::StatusOr<std::vector<uint8_t>> EncodeQ8_0(absl::Span<const float> w,
                                                int64_t rows, int64_t cols);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_Q8_0_H_
