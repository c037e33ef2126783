#include "services/model/hf_checkpoint.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "kernels/quant/dequantize.h"
#include "kernels/quant/ggml_types.h"
#include "services/common/error_info.h"
#include "services/model/ct_config.h"
#include "services/model/hf_config_file.h"
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

constexpr char kHead[] = "lm_head";

// What makes up a matrix in the files: floats, or packed codes.
constexpr const char* kParts[] = {".weight", ".weight_packed", ".weight_scale",
                                  ".weight_shape"};

// The name of a tensor without ".weight".
std::string ModuleOf(const std::string& weight) {
  return weight.substr(0, weight.size() - (sizeof(".weight") - 1));
}

}  // namespace

absl::StatusOr<std::unique_ptr<HfCheckpoint>> HfCheckpoint::Open(
    const std::string& folder) {
  auto checkpoint = std::unique_ptr<HfCheckpoint>(new HfCheckpoint);
  checkpoint->folder_ = folder;
  ASSIGN_OR_RETURN(const HfConfigFile file, ReadHfConfigFile(folder));
  ASSIGN_OR_RETURN(checkpoint->config_,
                   ConfigFromHfJson(file.model_json, file.path));
  if (!file.quantization_json.empty()) {
    RETURN_IF_ERROR(
        checkpoint->AssignSchemes(file.quantization_json, file.path));
  }
  ASSIGN_OR_RETURN(checkpoint->weights_, SafetensorsFolder::Open(folder));
  if (file.multimodal) {
    RETURN_IF_ERROR(checkpoint->weights_->KeepTextModel());
  }
  RETURN_IF_ERROR(checkpoint->CheckTensors(file.tied_head));
  return checkpoint;
}

absl::Status HfCheckpoint::AssignSchemes(const std::string& quantization,
                                         const std::string& path) {
  ASSIGN_OR_RETURN(const CtConfig config, CtConfig::Parse(quantization, path));
  std::map<std::string, CtModuleShape> shapes;
  std::vector<CtModule> modules = {{ModuleOf(kHfEmbedding), "Embedding"},
                                   {kHead, "Linear"}};
  for (const CtModule& module : modules) {
    shapes[module.name] = {module.name, config_.vocab_size, config_.hidden, {}};
  }
  for (const TableSpec& spec : GemmaTables(config_)) {
    const std::string module = ModuleOf(spec.hf_name);
    if (shapes.count(module) > 0) continue;
    modules.push_back({module, "Embedding"});
    shapes[module] = {module, spec.rows, spec.cols, {}};
  }
  for (const LinearSpec& spec : GemmaLinears(config_)) {
    if (spec.experts > 1) continue;
    modules.push_back({spec.hf_name, "Linear"});
    shapes[spec.hf_name] = {spec.hf_name, spec.out, spec.in, {}};
  }
  ASSIGN_OR_RETURN(const auto schemes, config.Assign(modules));
  for (const auto& [module, scheme] : schemes) {
    packed_[module] = shapes[module];
    packed_[module].scheme = scheme;
  }
  return absl::OkStatus();
}

absl::Status HfCheckpoint::CheckTensor(
    const std::string& name, const std::vector<int64_t>& shape) const {
  const auto& tensors = weights_->tensors();
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    return CorruptFile(folder_, absl::StrCat("tensor '", name, "' is missing"));
  }
  const std::string& path = found->second->path();
  const SafetensorsFile::Tensor& tensor = *weights_->Find(name);
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

absl::Status HfCheckpoint::CheckMatrix(const std::string& module, int64_t out,
                                       int64_t in,
                                       std::set<std::string>& known) const {
  const auto packed = packed_.find(module);
  if (packed != packed_.end()) {
    return CheckCtModule(*weights_, folder_, packed->second, &known);
  }
  const std::string name = absl::StrCat(module, ".weight");
  if (weights_->Find(absl::StrCat(name, "_packed")) != nullptr) {
    return CorruptFile(folder_, absl::StrCat("tensor '", name,
                                             "_packed': config.json "
                                             "does not say how ",
                                             module, " is packed"));
  }
  known.insert(name);
  return CheckTensor(name, {out, in});
}

// A head in the files must have the embedding's bytes.
absl::Status HfCheckpoint::CheckHead(bool tied_head,
                                     std::set<std::string>& known) const {
  const std::string embedding = ModuleOf(kHfEmbedding);
  bool present = false;
  for (const char* part : kParts) {
    const std::string name = absl::StrCat(kHead, part);
    const SafetensorsFile::Tensor* head = weights_->Find(name);
    if (head == nullptr) continue;
    present = true;
    known.insert(name);
    const SafetensorsFile::Tensor* same =
        weights_->Find(absl::StrCat(embedding, part));
    if (same != nullptr && same->dtype == head->dtype &&
        same->shape == head->shape && same->data == head->data) {
      continue;
    }
    return TensorError(weights_->tensors().at(name)->path(), name,
                       "is not the embedding: a head of its own is not "
                       "supported");
  }
  if (present || tied_head) return absl::OkStatus();
  return CorruptFile(
      folder_, absl::StrCat("tensor '", kHead, ".weight' is missing; ",
                            "config.json says that the head is not tied"));
}

absl::Status HfCheckpoint::CheckTensors(bool tied_head) const {
  std::set<std::string> known;
  for (const TableSpec& spec : GemmaTables(config_)) {
    RETURN_IF_ERROR(
        CheckMatrix(ModuleOf(spec.hf_name), spec.rows, spec.cols, known));
  }
  for (const LinearSpec& spec : GemmaLinears(config_)) {
    if (spec.experts > 1) {  // One tensor of no module.
      known.insert(spec.HfWeightName());
      RETURN_IF_ERROR(CheckTensor(spec.HfWeightName(), spec.HfShape()));
      continue;
    }
    RETURN_IF_ERROR(CheckMatrix(spec.hf_name, spec.out, spec.in, known));
  }
  for (const NormSpec& spec : GemmaNorms(config_)) {
    if (spec.hf_name.empty()) continue;
    known.insert(spec.hf_name);
    RETURN_IF_ERROR(CheckTensor(spec.hf_name, spec.HfShape()));
  }
  RETURN_IF_ERROR(CheckHead(tied_head, known));
  for (const auto& [name, file] : weights_->tensors()) {
    if (known.count(name) == 0 && !IsUnusedKv(config_, name)) {
      return TensorError(file->path(), name,
                         "is not part of this architecture");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<CtMatrix> HfCheckpoint::Packed(const std::string& module) const {
  return ReadCtMatrix(*weights_, packed_.at(module));
}

absl::StatusOr<std::vector<float>> HfCheckpoint::Rows(const std::string& name,
                                                      int64_t begin,
                                                      int64_t end,
                                                      int64_t cols) const {
  const SafetensorsFile::Tensor* tensor = weights_->Find(name);
  if (tensor == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(folder_, ": no tensor '", name, "'"));
  }
  // CheckTensors has seen to the type.
  const GgmlType type = *FloatType(tensor->dtype);
  const int64_t width = type == GgmlType::kF32 ? 4 : 2;
  std::vector<float> values(static_cast<size_t>((end - begin) * cols));
  RETURN_IF_ERROR(quant::Dequantize(
      type,
      tensor->data.subspan(begin * cols * width, (end - begin) * cols * width),
      absl::MakeSpan(values)));
  return values;
}

absl::StatusOr<std::vector<float>> HfCheckpoint::Values(
    const std::string& name) const {
  const SafetensorsFile::Tensor* tensor = weights_->Find(name);
  int64_t count = 1;
  if (tensor != nullptr) {
    for (const int64_t size : tensor->shape) count *= size;
  }
  return Rows(name, 0, 1, count);
}

}  // namespace onegrid::model
