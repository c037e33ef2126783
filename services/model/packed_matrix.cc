#include "services/model/packed_matrix.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/quant/dequantize.h"
#include "services/common/error_info.h"

namespace onegrid::model {

const quant::Grid& GridOfPacked(const PackedShape& shape, bool ternary) {
  if (shape.bits == 8) return quant::kInt8G32;
  if (shape.bits == 4) return quant::kInt4G32;
  return ternary && shape.group % quant::kInt2G64.group == 0 ? quant::kInt2G64
                                                             : quant::kInt4G32;
}

absl::StatusOr<std::vector<float>> ReadScaleRows(
    const SafetensorsFolder& weights, const std::string& name, int64_t begin,
    int64_t end) {
  const SafetensorsFile::Tensor& tensor = *weights.Find(name);
  const int64_t columns = tensor.shape[1];
  const size_t row_bytes =
      tensor.data.size() / static_cast<size_t>(tensor.shape[0]);
  std::vector<float> scales(static_cast<size_t>((end - begin) * columns));
  RETURN_IF_ERROR(quant::Dequantize(
      *FloatType(tensor.dtype),
      tensor.data.subspan(begin * row_bytes, (end - begin) * row_bytes),
      absl::MakeSpan(scales)));
  for (size_t i = 0; i < scales.size(); ++i) {
    if (std::isfinite(scales[i])) continue;
    const std::string& path = weights.tensors().at(name)->path();
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "UNSUPPORTED_TENSOR",
        absl::StrCat(path, ": tensor ", name,
                     " has a scale that is not finite, at element ",
                     begin * columns + static_cast<int64_t>(i)),
        {{"path", path}, {"tensor", name}});
  }
  return scales;
}

}  // namespace onegrid::model
