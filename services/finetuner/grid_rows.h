// Loops over one row of a matrix under training on its grid, vectorized and
// free of LibTorch, allocation and threads. The rounding is kernels/quant's.
//
// A weight is scale * code with code = round(clamp(v)), v = phi * ratio: phi is
// the latent value in steps of the group's first scale; ratio is 1 where codes
// stay when the scale moves, and first scale / scale where the weight stays.
#ifndef SERVICES_FINETUNER_GRID_ROWS_H_
#define SERVICES_FINETUNER_GRID_ROWS_H_

#include <cstdint>

#include "kernels/quant/grid.h"

namespace onegrid::finetuner {

// scale[g] = SnapScale(first[g] * (1 + move[g])): the forward of a trained
// scale, whose parameter is its relative move.
void SnapScalesRow(const float* first, const float* move, int64_t groups,
                   float* scale);

// w[i] = scale * code, and codes[i] unless nullptr. phi [cols]; ratio and
// scale, one per group; ratio may be nullptr (all 1).
void SnapWeightsRow(const float* phi, const float* ratio, const float* scale,
                    int64_t cols, const quant::Grid& grid, float* w,
                    int8_t* codes);

// Gradients by the straight-through estimator, from dw [cols], d loss / d w:
//   d_phi[i] = dw * (ratio ? first : scale) where v is within the codes, 0
//              outside (overwritten; nullptr: not wanted);
//   d_move[g] += first[g] * sum over the group of dw * slope, slope = code
//              without ratio; with it LSQ's: code - v inside, code outside
//              (nullptr: not wanted).
void GridGradRow(const float* dw, const float* phi, const float* ratio,
                 const float* first, const float* scale, int64_t cols,
                 const quant::Grid& grid, float* d_phi, float* d_move);

// One AdamW step. m and v are the moments.
struct AdamWCoefficients {
  float beta1;
  float beta2;
  float keep;         // 1 - learning rate * weight decay
  float step;         // learning rate / (1 - beta1^t)
  float correction2;  // 1 / (1 - beta2^t)
  float eps;
  float gradient_scale;  // Of clipping.
};
void AdamWRow(const float* g, int64_t n, const AdamWCoefficients& c, float* p,
              float* m, float* v);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_GRID_ROWS_H_
