#include "services/model/hf_checkpoint.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "kernels/quant/dequantize.h"
#include "kernels/quant/ggml_types.h"
#include "services/common/error_info.h"
#include "services/model/ct_config.h"
#include "services/model/gemma_quant_config.h"
#include "services/model/hf_model_config.h"
#include "services/model/mapped_file.h"
#include "services/model/safetensors_folder.h"
#include "services/model/tensor_names.h"
#include "services/model/tensor_ops.h"

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

// The name of a tensor without ".weight".
std::string ModuleOf(const std::string& weight) {
  return weight.substr(0, weight.size() - (sizeof(".weight") - 1));
}

bool IsTable(const std::string& module) {
  return module == ModuleOf(kHfEmbedding) ||
         module == ModuleOf(kHfPerLayerEmbedding);
}

}  // namespace

bool HasHead(const SafetensorsFolder& weights) {
  const std::string prefix = absl::StrCat(kHfHead, ".");
  const auto first = weights.tensors().lower_bound(prefix);
  return first != weights.tensors().end() &&
         absl::StartsWith(first->first, prefix);
}

absl::StatusOr<std::unique_ptr<HfCheckpoint>> HfCheckpoint::Open(
    const std::string& folder) {
  auto checkpoint = std::unique_ptr<HfCheckpoint>(new HfCheckpoint);
  checkpoint->folder_ = folder;
  ASSIGN_OR_RETURN(const HfConfigFile file, ReadHfConfigFile(folder));
  ASSIGN_OR_RETURN(checkpoint->config_,
                   ConfigFromHfJson(file.model_json, file.path));
  if (file.quant_method == kMobileMethod) {
    RETURN_IF_ERROR(checkpoint->AssignMobileBits(file));
  } else if (!file.quantization_json.empty()) {
    RETURN_IF_ERROR(checkpoint->AssignSchemes(file));
  }
  ASSIGN_OR_RETURN(checkpoint->weights_, SafetensorsFolder::Open(folder));
  if (file.multimodal) {
    RETURN_IF_ERROR(checkpoint->weights_->KeepTextModel());
  }
  RETURN_IF_ERROR(checkpoint->CheckTensors(file.tied_head));
  return checkpoint;
}

std::vector<CtModuleShape> HfCheckpoint::Modules() const {
  std::vector<CtModuleShape> modules = {
      {kHfHead, config_.vocab_size, config_.hidden, {}}};
  for (const TableSpec& spec : GemmaTables(config_)) {
    modules.push_back({ModuleOf(spec.hf_name), spec.rows, spec.cols, {}});
  }
  for (const LinearSpec& spec : GemmaLinears(config_)) {
    if (spec.experts > 1) continue;
    modules.push_back({spec.hf_name, spec.out, spec.in, {}});
  }
  return modules;
}

absl::Status HfCheckpoint::AssignSchemes(const HfConfigFile& file) {
  ASSIGN_OR_RETURN(const CtConfig config,
                   CtConfig::Parse(file.quantization_json, file.path));
  std::map<std::string, CtModuleShape> shapes;
  std::vector<CtModule> modules;
  for (const CtModuleShape& module : Modules()) {
    shapes[module.name] = module;
    modules.push_back(
        {module.name, IsTable(module.name) ? "Embedding" : "Linear"});
  }
  ASSIGN_OR_RETURN(const auto schemes, config.Assign(modules));
  for (const auto& [module, scheme] : schemes) {
    ct_[module] = shapes[module];
    ct_[module].scheme = scheme;
  }
  return absl::OkStatus();
}

absl::Status HfCheckpoint::AssignMobileBits(const HfConfigFile& file) {
  ASSIGN_OR_RETURN(
      const GemmaQuantConfig config,
      GemmaQuantConfig::Parse(file.quantization_json, file.module_patterns,
                              file.tied_head, file.path));
  for (const CtModuleShape& module : Modules()) {
    const bool table = IsTable(module.name);
    // What the module is called in the model that the folder holds.
    std::string name = module.name;
    if (file.multimodal && absl::StartsWith(name, "model.")) {
      name.insert(sizeof("model"), "language_model.");
    }
    const int bits = config.Bits(name, table);
    if (bits == 0) continue;
    mobile_[module.name] = {module.name, module.out, module.in, bits, table};
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
                                       std::set<std::string>& known) {
  if (const auto packed = ct_.find(module); packed != ct_.end()) {
    return CheckCtModule(*weights_, folder_, packed->second, &known);
  }
  if (const auto packed = mobile_.find(module); packed != mobile_.end()) {
    return CheckGemmaModule(*weights_, folder_, packed->second, &known,
                            &static_scales_);
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

// Finds out whether the head is the embedding, whose tensors are checked.
absl::Status HfCheckpoint::CheckHead(bool tied_head,
                                     std::set<std::string>& known) {
  if (!HasHead(*weights_)) {
    if (tied_head) return absl::OkStatus();
    return CorruptFile(
        folder_, absl::StrCat("tensor '", kHfHead, ".weight' is missing; ",
                              "config.json says that the head is not tied"));
  }
  const int64_t rows = config_.vocab_size, cols = config_.hidden;
  RETURN_IF_ERROR(CheckMatrix(kHfHead, rows, cols, known));
  for (const auto [begin, end] : RowParts(rows, cols)) {
    ASSIGN_OR_RETURN(const std::vector<float> head,
                     ModuleRows(kHfHead, begin, end, cols));
    ASSIGN_OR_RETURN(const std::vector<float> embedding,
                     ModuleRows(ModuleOf(kHfEmbedding), begin, end, cols));
    if (head == embedding) continue;
    config_.tied_head = false;
    break;
  }
  return absl::OkStatus();
}

absl::Status HfCheckpoint::CheckTensors(bool tied_head) {
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
  if (!mobile_.empty()) TakeCacheScales(*weights_, &known, &static_scales_);
  for (const auto& [name, file] : weights_->tensors()) {
    if (known.count(name) == 0 && !IsUnusedKv(config_, name)) {
      return TensorError(file->path(), name,
                         "is not part of this architecture");
    }
  }
  return absl::OkStatus();
}

PackedShape HfCheckpoint::PackedShapeOf(const std::string& module) const {
  const auto packed = ct_.find(module);
  return packed != ct_.end() ? ShapeOf(packed->second)
                             : ShapeOf(*weights_, mobile_.at(module));
}

absl::StatusOr<const quant::Grid*> HfCheckpoint::PackedGrid(
    const std::string& module) const {
  const PackedShape shape = PackedShapeOf(module);
  bool ternary = shape.bits == 2;
  if (!ternary) return &GridOfPacked(shape, ternary);
  for (const auto [begin, end] : RowParts(shape.rows, shape.cols)) {
    ASSIGN_OR_RETURN(const PackedMatrix part, PackedRows(module, begin, end));
    ternary =
        std::find(part.codes.begin(), part.codes.end(), -2) == part.codes.end();
    if (!ternary) break;
  }
  return &GridOfPacked(shape, ternary);
}

absl::StatusOr<PackedMatrix> HfCheckpoint::PackedRows(const std::string& module,
                                                      int64_t begin,
                                                      int64_t end) const {
  const auto packed = ct_.find(module);
  return packed != ct_.end()
             ? ReadCtRows(*weights_, packed->second, begin, end)
             : ReadGemmaRows(*weights_, mobile_.at(module), begin, end);
}

absl::StatusOr<std::vector<float>> HfCheckpoint::ModuleRows(
    const std::string& module, int64_t begin, int64_t end, int64_t cols) const {
  if (!IsPacked(module)) {
    return Rows(absl::StrCat(module, ".weight"), begin, end, cols);
  }
  ASSIGN_OR_RETURN(const PackedMatrix matrix, PackedRows(module, begin, end));
  std::vector<float> values(matrix.codes.size());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(matrix.codes[i]) *
                matrix.scales[i / static_cast<size_t>(matrix.group)];
  }
  return values;
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
