#include "kernels/quant/exact_grid.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>

#include "kernels/base/float_types.h"
#include "kernels/quant/shape_check.h"

namespace onegrid::quant {
namespace {

bool IsF16(float x) { return kernels::F16ToFloat(kernels::FloatToF16(x)) == x; }

// The codes of a group at one scale, if the group is exactly on it.
bool CodesAt(absl::Span<const float> w, float scale, const Grid& grid,
             int8_t* codes) {
  for (size_t i = 0; i < w.size(); ++i) {
    const float code = RoundToCodeF32(w[i], scale, grid);
    if (code * scale != w[i]) return false;
    codes[i] = static_cast<int8_t>(code);
  }
  return true;
}

// Codes and scale of one group; false if it is not on the grid.
bool FindGroup(absl::Span<const float> w, const Grid& grid, int8_t* codes,
               float& scale) {
  float amax = 0;
  for (const float value : w) {
    if (!std::isfinite(value)) return false;
    amax = std::max(amax, std::fabs(value));
  }
  if (amax == 0) {
    scale = &grid == &kInt8G32 ? 0.0f : kMinScale;
    std::fill_n(codes, w.size(), int8_t{0});
    return true;
  }
  const int largest = std::max(-int{grid.min_code}, int{grid.max_code});
  const auto fits = [&](int extreme) {
    scale = amax / static_cast<float>(extreme);
    return scale > 0 && IsF16(scale) && CodesAt(w, scale, grid, codes);
  };
  if (&grid == &kInt8G32 && fits(largest)) return true;
  for (const bool dual_exact : {true, false}) {
    for (int extreme = largest; extreme >= 1; --extreme) {
      if (IsDualExact(amax / static_cast<float>(extreme)) == dual_exact &&
          fits(extreme)) {
        return true;
      }
    }
  }
  return false;
}

std::optional<GridMatrix> FindOn(absl::Span<const float> w, int64_t rows,
                                 int64_t cols, const Grid& grid) {
  if (!CheckMatrixSize("weights", rows, cols, grid.group, grid.group,
                       static_cast<int64_t>(w.size()))
           .ok()) {
    return std::nullopt;
  }
  const auto group = static_cast<size_t>(grid.group);
  GridMatrix matrix;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.grid = &grid;
  matrix.codes.resize(w.size());
  matrix.scales.resize(w.size() / group);
  bool zero = true;
  for (size_t g = 0; g < matrix.scales.size(); ++g) {
    int8_t* codes = matrix.codes.data() + g * group;
    if (!FindGroup(w.subspan(g * group, group), grid, codes,
                   matrix.scales[g])) {
      return std::nullopt;
    }
    zero = zero && std::all_of(codes, codes + group,
                               [](int8_t code) { return code == 0; });
  }
  if (zero) return std::nullopt;
  return matrix;
}

}  // namespace

std::optional<GridMatrix> FindExactGrid(absl::Span<const float> w, int64_t rows,
                                        int64_t cols) {
  for (const Grid* grid : {&kInt2G64, &kInt4G32, &kInt8G32}) {
    std::optional<GridMatrix> matrix = FindOn(w, rows, cols, *grid);
    if (matrix.has_value()) return matrix;
  }
  return std::nullopt;
}

}  // namespace onegrid::quant
