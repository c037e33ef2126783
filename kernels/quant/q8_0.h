#ifndef KERNELS_QUANT_Q8_0_H_
#define KERNELS_QUANT_Q8_0_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

// GGUF Q8_0: blocks of 32 elements along a row, 34 bytes each:
//   bytes 0..1   d, f16 little-endian
//   byte 2 + j   code of element j, int8
// Element = code * d.
namespace onegrid::quant {

inline constexpr int64_t kQ8_0BlockBytes = 34;

// A matrix [rows, cols] of int8 codes, one scale per 32 inputs.
struct Int8Matrix {
  int64_t rows = 0;
  int64_t cols = 0;           // A multiple of 32.
  std::vector<int8_t> codes;  // [rows * cols]
  std::vector<float> scales;  // [rows * cols / 32]
};

// The matrix as rows of Q8_0 blocks, codes and scales unchanged.
// InvalidArgument: vectors that do not fit the sizes, or a scale that f16 does
// not hold exactly.
absl::StatusOr<std::vector<uint8_t>> PackQ8_0(const Int8Matrix& matrix);

// The inverse. InvalidArgument: cols is not a multiple of 32, the byte count
// does not fit, or a scale is infinite or NaN.
absl::StatusOr<Int8Matrix> UnpackQ8_0(absl::Span<const uint8_t> blocks,
                                      int64_t rows, int64_t cols);

// w [rows, cols] by ggml's reference rule (quantize_row_q8_0_ref), bit for bit:
// d = amax / 127, codes round half away from zero.
// InvalidArgument: sizes as in UnpackQ8_0, a NaN or infinite weight, or a d
// beyond f16.
absl::StatusOr<std::vector<uint8_t>> EncodeQ8_0(absl::Span<const float> w,
                                                int64_t rows, int64_t cols);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_Q8_0_H_
