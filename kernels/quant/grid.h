#ifndef KERNELS_QUANT_GRID_H_
#define KERNELS_QUANT_GRID_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

// The grids: a weight is code * scale (f32 multiply), the code an integer of a
// small range, one scale for each group of consecutive inputs of a row.
//
// A scale is dual-exact when it is positive, has at most 8 significant bits and
// lies in [kMinScale, kMaxScale]: then it is exact both in f16 (what GGUF's
// blocks store) and in bf16 (what compressed-tensors stores), and one model
// fits both files without loss. This file is the one place that says how a
// weight and a scale are rounded: training, folding, export and serving all
// call it.
namespace onegrid::quant {

// Range of the codes and size of the groups.
struct Grid {
  const char* name;
  int8_t min_code;
  int8_t max_code;
  int group;
};

inline constexpr Grid kInt4G32 = {"int4_g32", -8, 7, 32};
// Ternary, so that the codes are valid in every 2-bit format; groups of 64.
inline constexpr Grid kInt2G64 = {"int2_g64", -1, 1, 64};
inline constexpr Grid kInt8G32 = {"int8_g32", -127, 127, 32};

// Group of int4_g32 and int8_g32, and of GGUF's Q4_0 and Q8_0.
inline constexpr int kGroup = 32;

// InvalidArgument: no such grid (the message lists them).
absl::StatusOr<const Grid*> GridByName(absl::string_view name);

inline constexpr float kMinScale = 0x1p-14f;    // Smallest normal f16.
inline constexpr float kMaxScale = 0x1.fep15f;  // 65280 = 255 * 2^8.

// The nearest dual-exact scale, ties to the even significand. What lies outside
// the range, zero and negative values included, goes to the nearest end; a NaN
// goes to kMinScale.
float SnapScale(float s);

// True if s is dual-exact: SnapScale(s) == s.
bool IsDualExact(float s);

// THE rounding rule: x, a weight in steps of its scale, clamped to the codes of
// the grid, then rounded to the nearest integer, ties to even. A NaN gives
// min_code. The code as a float, for arithmetic that goes on in floats.
inline float RoundStepsF32(float x, const Grid& grid) {
  const auto min = static_cast<float>(grid.min_code);
  const auto max = static_cast<float>(grid.max_code);
  x = x > min ? x : min;
  x = x < max ? x : max;
  // Adding 1.5 * 2^23 leaves no fraction bits: the sum is rounded to an
  // integer.
  constexpr float kRound = 0x1.8p23f;
  return (x + kRound) - kRound;
}

// The rule for a weight: w / scale is an f32 division. scale must be positive.
inline float RoundToCodeF32(float w, float scale, const Grid& grid) {
  return RoundStepsF32(w / scale, grid);
}

inline int8_t RoundToCode(float w, float scale, const Grid& grid) {
  return static_cast<int8_t>(RoundToCodeF32(w, scale, grid));
}

// A matrix [rows, cols] on a grid; rows are outputs, cols inputs.
struct GridMatrix {
  int64_t rows = 0;
  int64_t cols = 0;           // A multiple of the group.
  std::vector<int8_t> codes;  // [rows * cols], in the grid's range.
  std::vector<float> scales;  // [rows * cols / group].
  const Grid* grid = &kInt4G32;
};

// InvalidArgument: negative sizes, cols not a multiple of the group, vectors
// whose sizes do not fit rows and cols, or a code outside the grid's range.
absl::Status ValidateMatrix(const GridMatrix& matrix);

// Encodes w [rows, cols] with dual-exact scales, group by group:
// - a group that lies exactly on some dual-exact grid keeps those values (of
//   several such grids, the one with the largest extreme code);
// - a group of zeros gets codes 0 and kMinScale;
// - otherwise the scale with the least squared error among snapped candidates
//   around the largest weight's and the least-squares scale of the best one's
//   codes.
// InvalidArgument: sizes as in ValidateMatrix, a NaN or infinite weight, or a
// weight that the largest scale cannot reach. Some seconds per 100 million
// weights.
absl::StatusOr<GridMatrix> EncodeMatrix(absl::Span<const float> w, int64_t rows,
                                        int64_t cols, const Grid& grid);

// out[i] = f32(codes[i]) * scale of its group. out.size() must be rows * cols
// and the matrix valid.
void DequantizeMatrix(const GridMatrix& matrix, absl::Span<float> out);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_GRID_H_
