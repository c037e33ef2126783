#include "services/model/tensor_ops.h"

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

}  // namespace onegrid::model
