#include "services/finetuner/grid_rows.h"

#include <cmath>

#include "kernels/base/clones.h"

namespace onegrid::finetuner {

void SnapScalesRow(const float* first, const float* move, int64_t groups,
                   float* scale) {
  for (int64_t g = 0; g < groups; ++g) {
    scale[g] = quant::SnapScale(first[g] * (1.0f + move[g]));
  }
}

ONEGRID_CLONES
void SnapWeightsRow(const float* phi, const float* ratio, const float* scale,
                    int64_t cols, const quant::Grid& grid, float* w,
                    int8_t* codes) {
  const int64_t group = grid.group;
  for (int64_t g = 0; g < cols / group; ++g) {
    const float r = ratio == nullptr ? 1.0f : ratio[g];
    const float s = scale[g];
    const float* x = phi + g * group;
    float* y = w + g * group;
#pragma omp simd
    for (int64_t i = 0; i < group; ++i) {
      y[i] = quant::RoundStepsF32(x[i] * r, grid) * s;
    }
    if (codes == nullptr) continue;
    for (int64_t i = 0; i < group; ++i) {
      codes[g * group + i] =
          static_cast<int8_t>(quant::RoundStepsF32(x[i] * r, grid));
    }
  }
}

ONEGRID_CLONES
void GridGradRow(const float* dw, const float* phi, const float* ratio,
                 const float* first, const float* scale, int64_t cols,
                 const quant::Grid& grid, float* d_phi, float* d_move) {
  const int64_t group = grid.group;
  const auto min = static_cast<float>(grid.min_code);
  const auto max = static_cast<float>(grid.max_code);
  for (int64_t g = 0; g < cols / group; ++g) {
    const float r = ratio == nullptr ? 1.0f : ratio[g];
    const float through = ratio == nullptr ? scale[g] : first[g];
    const float lsq = ratio == nullptr ? 0.0f : 1.0f;
    const float* x = phi + g * group;
    const float* d = dw + g * group;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < group; ++i) {
      const float v = x[i] * r;
      const float inside = v >= min && v <= max ? 1.0f : 0.0f;
      sum += d[i] * (quant::RoundStepsF32(v, grid) - lsq * inside * v);
    }
    if (d_move != nullptr) d_move[g] += sum * first[g];
    if (d_phi == nullptr) continue;
    float* out = d_phi + g * group;
#pragma omp simd
    for (int64_t i = 0; i < group; ++i) {
      const float v = x[i] * r;
      out[i] = v >= min && v <= max ? d[i] * through : 0.0f;
    }
  }
}

ONEGRID_CLONES
void AdamWRow(const float* g, int64_t n, const AdamWCoefficients& c, float* p,
              float* m, float* v) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float gradient = g[i] * c.gradient_scale;
    m[i] = c.beta1 * m[i] + (1.0f - c.beta1) * gradient;
    v[i] = c.beta2 * v[i] + (1.0f - c.beta2) * gradient * gradient;
    p[i] = c.keep * p[i] -
           c.step * m[i] / (std::sqrt(v[i] * c.correction2) + c.eps);
  }
}

}  // namespace onegrid::finetuner
