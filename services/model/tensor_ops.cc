#include "services/model/tensor_ops.h"

#include <algorithm>

#include "absl/types/span.h"
#include "kernels/quant/dequantize.h"
#include "services/common/error_info.h"

namespace onegrid::model {

absl::StatusOr<std::vector<float>> DequantizeTensor(
    const GgufFile::Tensor& tensor) {
  std::vector<float> values(tensor.rows() * tensor.cols());
  RETURN_IF_ERROR(
      quant::Dequantize(tensor.type, tensor.data, absl::MakeSpan(values)));
  return values;
}

absl::StatusOr<std::vector<float>> DequantizeRows(
    const GgufFile::Tensor& tensor, int64_t begin, int64_t end) {
  const size_t row_bytes =
      tensor.data.size() / static_cast<size_t>(tensor.rows());
  return DequantizeTensor(
      {tensor.name,
       tensor.type,
       {tensor.cols(), end - begin},
       tensor.data.subspan(begin * row_bytes, (end - begin) * row_bytes)});
}

std::vector<RowRange> RowParts(int64_t rows, int64_t cols, int64_t elements) {
  const int64_t step = std::max<int64_t>(1, elements / cols);
  std::vector<RowRange> parts;
  for (int64_t begin = 0; begin < rows; begin += step) {
    parts.push_back({begin, std::min(rows, begin + step)});
  }
  return parts;
}

}  // namespace onegrid::model
