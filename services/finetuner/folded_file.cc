#include "services/finetuner/folded_file.h"

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>

#include "services/common/error_info.h"
#include "services/finetuner/tensor_file.h"

namespace onegrid::finetuner {

absl::Status WriteFolded(absl::Span<const NamedMatrix> matrices,
                         absl::Span<const NamedNorm> norms,
                         const std::string& path) {
  TensorFileWriter writer;
  nlohmann::json grids = nlohmann::json::object();
  // Wide types first, so that all are aligned.
  for (const auto& [name, matrix] : matrices) {
    if (matrix->grid != &quant::kInt4G32) grids[name] = matrix->grid->name;
    RETURN_IF_ERROR(writer.Add(
        name + ".scales",
        at::from_blob(const_cast<float*>(matrix->scales.data()),
                      {matrix->rows, matrix->cols / matrix->grid->group},
                      at::kFloat)));
  }
  for (const auto& [name, values] : norms) {
    RETURN_IF_ERROR(writer.Add(
        name,
        at::from_blob(const_cast<float*>(values->data()),
                      {static_cast<int64_t>(values->size())}, at::kFloat)));
  }
  for (const auto& [name, matrix] : matrices) {
    RETURN_IF_ERROR(
        writer.Add(name + ".codes",
                   at::from_blob(const_cast<int8_t*>(matrix->codes.data()),
                                 {matrix->rows, matrix->cols}, at::kChar)));
  }
  std::map<std::string, std::string> metadata = {
      {"format", "onegrid.folded.v1"}};
  if (!grids.empty()) metadata["grids"] = grids.dump();
  writer.SetMetadata(metadata);
  return writer.WriteTo(path);
}

}  // namespace onegrid::finetuner
