#ifndef KERNELS_QUANT_INT4_G32_H_
#define KERNELS_QUANT_INT4_G32_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

// The grid int4_g32: a weight is code * scale, code in -8..7, one scale for
// each group of 32 consecutive inputs of a row, f32 multiply.
//
// A scale is dual-exact when it is positive, has at most 8 significant bits and
// lies in [kMinScale, kMaxScale]: then it is exact both in f16 (what GGUF Q4_0
// stores) and in bf16 (what compressed-tensors stores), and one model fits both
// files without loss. This file is the one place that says how a weight and a
// scale are rounded: training, folding, export and serving all call it.
namespace onegrid::quant {

inline constexpr int kGroup = 32;
inline constexpr int8_t kMinCode = -8;
inline constexpr int8_t kMaxCode = 7;
inline constexpr float kMinScale = 0x1p-14f;    // Smallest normal f16.
inline constexpr float kMaxScale = 0x1.fep15f;  // 65280 = 255 * 2^8.

// The nearest dual-exact scale, ties to the even significand. What lies outside
// the range, zero and negative values included, goes to the nearest end; a NaN
// goes to kMinScale.
float SnapScale(float s);

// True if s is dual-exact: SnapScale(s) == s.
bool IsDualExact(float s);

// THE rounding rule: w / scale (f32 division) clamped to -8..7, then rounded to
// the nearest integer, ties to even. scale must be positive; a NaN w gives -8.
// The code as a float, for arithmetic that goes on in floats.
inline float RoundToCodeF32(float w, float scale) {
  float x = w / scale;
  x = x > kMinCode ? x : kMinCode;
  x = x < kMaxCode ? x : kMaxCode;
  // Adding 1.5 * 2^23 leaves no fraction bits: the sum is rounded to an
  // integer.
  constexpr float kRound = 0x1.8p23f;
  return (x + kRound) - kRound;
}

inline int8_t RoundToCode(float w, float scale) {
  return static_cast<int8_t>(RoundToCodeF32(w, scale));
}

// A matrix [rows, cols] on the grid; rows are outputs, cols inputs.
struct Int4Matrix {
  int64_t rows = 0;
  int64_t cols = 0;           // A multiple of kGroup.
  std::vector<int8_t> codes;  // [rows * cols], each -8..7.
  std::vector<float> scales;  // [rows * cols / kGroup].
};

// InvalidArgument: negative sizes, cols not a multiple of kGroup, vectors whose
// sizes do not fit rows and cols, or a code outside -8..7.
absl::Status ValidateInt4(const Int4Matrix& matrix);

// Encodes w [rows, cols] with dual-exact scales, group by group:
// - a group that lies exactly on some dual-exact grid keeps those values (of
//   several such grids, the one with the largest extreme code);
// - a group of zeros gets codes 0 and kMinScale;
// - otherwise the scale with the least squared error among snapped candidates
//   around amax / 8 and the least-squares scale of the best one's codes.
// InvalidArgument: sizes as in ValidateInt4, a NaN or infinite weight, or a
// weight beyond 8 * kMaxScale. Some seconds per 100 million weights.
absl::StatusOr<Int4Matrix> EncodeInt4G32(absl::Span<const float> w,
                                         int64_t rows, int64_t cols);

// out[i] = f32(codes[i]) * scale of its group. out.size() must be rows * cols
// and the matrix valid.
void DequantizeInt4(const Int4Matrix& matrix, absl::Span<float> out);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_INT4_G32_H_
