#include "services/model/hf_checkpoint.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "kernels/quant/dequantize.h"
#include "kernels/quant/ggml_types.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/hf_model_config.h"
#include "services/model/mapped_file.h"
#include "services/model/safetensors_folder.h"
#include "services/model/tensor_names.h"

namespace onegrid::model {
namespace {

using quant::GgmlType;

absl::Status TensorError(const std::string& path, const std::string& tensor,
                         const std::string& what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "UNSUPPORTED_TENSOR",
                           absl::StrCat(path, ": tensor '", tensor, "' ", what),
                           {{"path", path}, {"tensor", tensor}});
}

}  // namespace

absl::StatusOr<std::unique_ptr<HfCheckpoint>> HfCheckpoint::Open(
    const std::string& folder) {
  auto checkpoint = std::unique_ptr<HfCheckpoint>(new HfCheckpoint);
  checkpoint->folder_ = folder;
  const std::string path = absl::StrCat(folder, "/config.json");
  ASSIGN_OR_RETURN(const std::string config, common::ReadFile(path));
  ASSIGN_OR_RETURN(checkpoint->config_, ConfigFromHfJson(config, path));
  ASSIGN_OR_RETURN(checkpoint->weights_, SafetensorsFolder::Open(folder));
  RETURN_IF_ERROR(checkpoint->CheckTensors());
  return checkpoint;
}

absl::Status HfCheckpoint::CheckTensor(
    const std::string& name, const std::vector<int64_t>& shape) const {
  const auto& tensors = weights_->tensors();
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    return CorruptFile(folder_, absl::StrCat("tensor '", name, "' is missing"));
  }
  const std::string& path = found->second->path();
  const SafetensorsFile::Tensor& tensor = *found->second->Find(name);
  if (tensor.shape != shape) {
    return CorruptFile(path,
                       absl::StrCat("tensor '", name, "': expected shape [",
                                    absl::StrJoin(shape, ", "), "], found [",
                                    absl::StrJoin(tensor.shape, ", "), "]"));
  }
  if (!FloatType(tensor.dtype).has_value()) {
    return TensorError(
        path, name,
        absl::StrCat("is ", tensor.dtype, ", expected BF16, F16 or F32"));
  }
  return absl::OkStatus();
}

absl::Status HfCheckpoint::CheckTensors() const {
  std::set<std::string> known;
  for (const TableSpec& spec : GemmaTables(config_)) {
    known.insert(spec.hf_name);
    RETURN_IF_ERROR(CheckTensor(spec.hf_name, {spec.rows, spec.cols}));
  }
  for (const LinearSpec& spec : GemmaLinears(config_)) {
    known.insert(spec.HfWeightName());
    RETURN_IF_ERROR(CheckTensor(spec.HfWeightName(), spec.HfShape()));
  }
  for (const NormSpec& spec : GemmaNorms(config_)) {
    if (spec.hf_name.empty()) continue;
    known.insert(spec.hf_name);
    RETURN_IF_ERROR(CheckTensor(spec.hf_name, spec.HfShape()));
  }
  for (const auto& [name, file] : weights_->tensors()) {
    if (known.count(name) == 0 && !IsUnusedKv(config_, name)) {
      return TensorError(file->path(), name,
                         "is not part of this architecture");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> HfCheckpoint::Values(
    const std::string& name) const {
  const SafetensorsFile::Tensor* tensor = weights_->Find(name);
  if (tensor == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(folder_, ": no tensor '", name, "'"));
  }
  // CheckTensors has seen to the type.
  const GgmlType type = *FloatType(tensor->dtype);
  const size_t width = type == GgmlType::kF32 ? 4 : 2;
  std::vector<float> values(tensor->data.size() / width);
  RETURN_IF_ERROR(
      quant::Dequantize(type, tensor->data, absl::MakeSpan(values)));
  return values;
}

}  // namespace onegrid::model
