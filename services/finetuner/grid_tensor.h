// Rounding of LibTorch matrices onto a grid, rows over threads.
#ifndef SERVICES_FINETUNER_GRID_TENSOR_H_
#define SERVICES_FINETUNER_GRID_TENSOR_H_

#include <ATen/ATen.h>

#include "absl/status/statusor.h"
#include "kernels/quant/grid.h"

namespace onegrid::finetuner {

// quant::EncodeMatrix of w [rows, cols] float32, and its errors.
absl::StatusOr<quant::GridMatrix> EncodeTensor(const at::Tensor& w,
                                               const quant::Grid& grid);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_GRID_TENSOR_H_
