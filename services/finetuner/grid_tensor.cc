#include "services/finetuner/grid_tensor.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "services/common/error_info.h"

namespace onegrid::finetuner {
namespace {

// Some hundred thousand weights: milliseconds.
constexpr int64_t kPartRows = 256;

}  // namespace

absl::StatusOr<quant::GridMatrix> EncodeTensor(const at::Tensor& w,
                                               const quant::Grid& grid) {
  const at::Tensor values = w.contiguous();
  const float* data = values.const_data_ptr<float>();
  quant::GridMatrix matrix;
  matrix.rows = values.size(0);
  matrix.cols = values.size(1);
  matrix.grid = &grid;
  const int64_t parts = (matrix.rows + kPartRows - 1) / kPartRows;
  std::vector<absl::StatusOr<quant::GridMatrix>> encoded(
      static_cast<size_t>(parts));
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t row = part * kPartRows;
      const int64_t rows = std::min(kPartRows, matrix.rows - row);
      encoded[static_cast<size_t>(part)] = quant::EncodeMatrix(
          absl::MakeConstSpan(data + row * matrix.cols,
                              static_cast<size_t>(rows * matrix.cols)),
          rows, matrix.cols, grid);
    }
  });
  matrix.codes.reserve(static_cast<size_t>(values.numel()));
  matrix.scales.reserve(static_cast<size_t>(values.numel() / grid.group));
  for (const auto& part : encoded) {
    RETURN_IF_ERROR(part.status());
    matrix.codes.insert(matrix.codes.end(), part->codes.begin(),
                        part->codes.end());
    matrix.scales.insert(matrix.scales.end(), part->scales.begin(),
                         part->scales.end());
  }
  return matrix;
}

}  // namespace onegrid::finetuner
