#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "kernels/quant/ct_pack.h"
#include "kernels/quant/dequantize.h"
#include "kernels/quant/grid_blocks.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/hf_checkpoint.h"
#include "services/model/hf_config_file.h"
#include "services/model/hf_model_config.h"
#include "services/model/hf_vocabulary.h"
#include "services/model/mapped_file.h"
#include "services/model/model_summary_builder.h"
#include "services/model/packed_matrix.h"
#include "services/model/safetensors_folder.h"
#include "services/model/tensor_names.h"

namespace onegrid::model {
namespace {

using nlohmann::json;
using Tensor = SafetensorsFile::Tensor;

// Bits and group size of packed weights; the group is 0 for one scale a row.
using Packing = std::pair<int64_t, int64_t>;

absl::Status Unsupported(const std::string& path, const std::string& what) {
  return common::MakeError(absl::StatusCode::kUnimplemented,
                           "UNSUPPORTED_QUANTIZATION",
                           absl::StrCat(path, ": ", what), {{"path", path}});
}

// The integer of an object's key; `missing` if there is none.
int64_t Integer(const json& object, const char* key, int64_t missing) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer()
             ? found->get<int64_t>()
             : missing;
}

// The packings that quantization_config declares.
absl::StatusOr<std::set<Packing>> DeclaredPackings(const json& quantization,
                                                   const std::string& path) {
  const auto corrupt = [&](const std::string& what) {
    return CorruptFile(path, absl::StrCat("quantization_config: ", what));
  };
  if (!quantization.is_object() || !quantization.contains("quant_method")) {
    return corrupt("expected an object with a quant_method");
  }
  if (quantization["quant_method"] != "compressed-tensors") {
    return Unsupported(path, absl::StrCat("quant_method: found ",
                                          quantization["quant_method"].dump(
                                              -1, ' ', /*ensure_ascii=*/true),
                                          ", supported: compressed-tensors"));
  }
  if (!quantization.contains("config_groups") ||
      !quantization["config_groups"].is_object()) {
    return corrupt("expected an object config_groups");
  }
  std::set<Packing> declared;
  for (const auto& [name, group] : quantization["config_groups"].items()) {
    if (!group.is_object() || !group.contains("weights") ||
        !group["weights"].is_object()) {
      return corrupt("a config group without weights");
    }
    const json& weights = group["weights"];
    const bool channel =
        weights.contains("strategy") && weights["strategy"] == "channel";
    declared.insert({Integer(weights, "num_bits", 0),
                     channel ? 0 : Integer(weights, "group_size", 0)});
  }
  return declared;
}

// "int4_g32", "int4_channel".
std::string TypeName(int64_t bits, int64_t group) {
  return group == 0 ? absl::StrCat("int", bits, "_channel")
                    : absl::StrCat("int", bits, "_g", group);
}

class FolderReader {
 public:
  // mobile: the folder, if its layout is Google's mobile one, else null.
  FolderReader(const std::string& folder, const SafetensorsFolder& weights,
               const std::set<Packing>& declared, const HfCheckpoint* mobile,
               ModelSummaryBuilder& builder)
      : folder_(folder),
        weights_(weights),
        declared_(declared),
        mobile_(mobile),
        builder_(builder) {}

  absl::Status Read(const GemmaConfig& config);

 private:
  absl::Status AddMatrix(const std::string& module,
                         const std::string& gguf_name, int64_t out, int64_t in);
  absl::Status AddFloats(const std::string& name,
                         const std::vector<int64_t>& shape);
  absl::Status AddPacked(const std::string& module,
                         const std::string& gguf_name, int64_t out, int64_t in);
  absl::Status AddMobile(const std::string& module,
                         const std::string& gguf_name);
  absl::Status CheckShape(const std::string& name, const Tensor& tensor,
                          const std::vector<int64_t>& shape) const;
  absl::Status Corrupt(const std::string& name, const std::string& what) const {
    return CorruptFile(folder_, absl::StrCat("tensor '", name, "'", what));
  }
  // nullptr if there is none; else it belongs to the model.
  const Tensor* Take(const std::string& name) {
    const Tensor* tensor = weights_.Find(name);
    if (tensor != nullptr) taken_.insert(name);
    return tensor;
  }

  const std::string& folder_;
  const SafetensorsFolder& weights_;
  const std::set<Packing>& declared_;
  const HfCheckpoint* mobile_;
  ModelSummaryBuilder& builder_;
  std::set<std::string> taken_;
};

absl::Status FolderReader::CheckShape(const std::string& name,
                                      const Tensor& tensor,
                                      const std::vector<int64_t>& shape) const {
  if (tensor.shape == shape) return absl::OkStatus();
  return Corrupt(
      name, absl::StrCat(": expected shape [", absl::StrJoin(shape, ", "),
                         "], found [", absl::StrJoin(tensor.shape, ", "), "]"));
}

absl::Status FolderReader::AddFloats(const std::string& name,
                                     const std::vector<int64_t>& shape) {
  const Tensor* tensor = Take(name);
  if (tensor == nullptr) return Corrupt(name, " is missing");
  RETURN_IF_ERROR(CheckShape(name, *tensor, shape));
  if (!FloatType(tensor->dtype).has_value()) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "UNSUPPORTED_TENSOR",
        absl::StrCat(folder_, ": tensor '", name, "' is ", tensor->dtype,
                     ", expected BF16, F16 or F32, or packed"),
        {{"path", folder_}, {"tensor", name}});
  }
  int64_t elements = 1;
  for (const int64_t size : shape) elements *= size;
  builder_.AddTensor(tensor->dtype, elements,
                     static_cast<int64_t>(tensor->data.size()));
  return absl::OkStatus();
}

absl::Status FolderReader::AddPacked(const std::string& module,
                                     const std::string& gguf_name, int64_t out,
                                     int64_t in) {
  const std::string packed_name = absl::StrCat(module, ".weight_packed");
  const std::string scale_name = absl::StrCat(module, ".weight_scale");
  if (Take(absl::StrCat(module, ".weight_zero_point")) != nullptr) {
    return Unsupported(folder_,
                       absl::StrCat(module, " has zero points, expected none"));
  }
  const Tensor& packed = *Take(packed_name);
  const Tensor* scale = Take(scale_name);
  if (scale == nullptr) return Corrupt(scale_name, " is missing");
  const auto scale_type = FloatType(scale->dtype);
  if (packed.dtype != "I32" || !scale_type.has_value()) {
    return Corrupt(
        module, absl::StrCat(" is packed as ", packed.dtype, " with scales of ",
                             scale->dtype, ", expected I32 and a float type"));
  }
  const int64_t words = packed.shape.size() == 2 ? packed.shape[1] : 0;
  const int64_t groups = scale->shape.size() == 2 ? scale->shape[1] : 0;
  RETURN_IF_ERROR(CheckShape(packed_name, packed, {out, words}));
  RETURN_IF_ERROR(CheckShape(scale_name, *scale, {out, groups}));
  const Packing* packing = nullptr;
  for (const Packing& candidate : declared_) {
    const auto& [bits, group] = candidate;
    if (bits < 1 || bits > 8 || group < 0) continue;
    const int64_t scales = group == 0 ? 1 : (in - 1) / group + 1;
    if (words == (in * bits + 31) / 32 && groups == scales) {
      packing = &candidate;
    }
  }
  if (packing == nullptr) {
    return Corrupt(packed_name,
                   absl::StrCat(": a row of ", in, " weights in ", words,
                                " words and ", groups, " scales fits no ",
                                "config group of config.json"));
  }
  int64_t bytes = static_cast<int64_t>(packed.data.size() + scale->data.size());
  if (const Tensor* shape = Take(absl::StrCat(module, ".weight_shape"))) {
    bytes += static_cast<int64_t>(shape->data.size());
  }
  std::vector<float> scales(static_cast<size_t>(out * groups));
  RETURN_IF_ERROR(
      quant::Dequantize(*scale_type, scale->data, absl::MakeSpan(scales)));
  const auto& [bits, group] = *packing;
  std::string type = TypeName(bits, group);
  if (const int64_t inputs = group == 0 ? in : group;
      (bits == 2 || bits == 4 || bits == 8) && inputs % quant::kGroup == 0) {
    const PackedShape whole{out, in, static_cast<int>(bits), inputs};
    builder_.SetServedType(
        gguf_name, quant::BlockType(GridOfPacked(whole, /*ternary=*/true)));
  }
  for (const quant::Grid* grid :
       {&quant::kInt4G32, &quant::kInt2G64, &quant::kInt8G32}) {
    if (quant::CodeBits(*grid) != bits || grid->group != group ||
        in % group != 0) {
      continue;
    }
    type = grid->name;
    builder_.AddScales(*grid, scales);
  }
  builder_.AddTensor(type, out * in, bytes);
  return absl::OkStatus();
}

absl::Status FolderReader::AddMobile(const std::string& module,
                                     const std::string& gguf_name) {
  int64_t bytes = 0;
  const std::string prefix = absl::StrCat(module, ".");
  for (auto it = weights_.tensors().lower_bound(prefix);
       it != weights_.tensors().end() && absl::StartsWith(it->first, prefix);
       ++it) {
    bytes += static_cast<int64_t>(Take(it->first)->data.size());
  }
  ASSIGN_OR_RETURN(const quant::Grid* grid, mobile_->PackedGrid(module));
  const PackedShape shape = mobile_->PackedShapeOf(module);
  builder_.SetServedType(gguf_name, quant::BlockType(*grid));
  builder_.AddTensor(
      TypeName(shape.bits, shape.group == shape.cols ? 0 : shape.group),
      shape.rows * shape.cols, bytes);
  return absl::OkStatus();
}

absl::Status FolderReader::AddMatrix(const std::string& module,
                                     const std::string& gguf_name, int64_t out,
                                     int64_t in) {
  if (mobile_ != nullptr && mobile_->IsPacked(module)) {
    return AddMobile(module, gguf_name);
  }
  if (weights_.Find(absl::StrCat(module, ".weight_packed")) != nullptr) {
    return AddPacked(module, gguf_name, out, in);
  }
  return AddFloats(absl::StrCat(module, ".weight"), {out, in});
}

absl::Status FolderReader::Read(const GemmaConfig& config) {
  for (const TableSpec& spec : GemmaTables(config)) {
    const std::string module(absl::StripSuffix(spec.hf_name, ".weight"));
    RETURN_IF_ERROR(AddMatrix(module, spec.gguf_name, spec.rows, spec.cols));
  }
  for (const LinearSpec& spec : GemmaLinears(config)) {
    if (spec.experts > 1) {
      RETURN_IF_ERROR(AddFloats(spec.HfWeightName(), spec.HfShape()));
      continue;
    }
    RETURN_IF_ERROR(AddMatrix(spec.hf_name, spec.gguf_name, spec.out, spec.in));
  }
  for (const NormSpec& spec : GemmaNorms(config)) {
    if (spec.hf_name.empty()) continue;
    RETURN_IF_ERROR(AddFloats(spec.hf_name, spec.HfShape()));
  }
  if (mobile_ != nullptr) return absl::OkStatus();  // It knows all of them.
  for (const auto& [name, file] : weights_.tensors()) {
    if (taken_.count(name) == 0) builder_.AddOtherTensor(name);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelSummary> SummaryOfFolder(const std::string& folder,
                                             int64_t context_tokens) {
  ASSIGN_OR_RETURN(const HfConfigFile file, ReadHfConfigFile(folder));
  std::set<Packing> declared;
  const bool packed = !file.quantization_json.empty();
  const bool mobile = file.quant_method == kMobileMethod;
  if (packed && !mobile) {
    ASSIGN_OR_RETURN(
        declared,
        DeclaredPackings(json::parse(file.quantization_json), file.path));
  }
  ASSIGN_OR_RETURN(GemmaConfig config,
                   ConfigFromHfJson(file.model_json, file.path));
  ASSIGN_OR_RETURN(const auto weights, SafetensorsFolder::Open(folder));
  if (file.multimodal) RETURN_IF_ERROR(weights->KeepTextModel());
  std::unique_ptr<HfCheckpoint> checkpoint;
  if (mobile || HasHead(*weights)) {
    ASSIGN_OR_RETURN(checkpoint, HfCheckpoint::Open(folder));
    config = checkpoint->config();
  }
  ModelSummaryBuilder builder(mobile   ? "mobile"
                              : packed ? "compressed-tensors"
                                       : "safetensors",
                              config);
  RETURN_IF_ERROR(FolderReader(folder, *weights, declared,
                               mobile ? checkpoint.get() : nullptr, builder)
                      .Read(config));
  // Last: a vocabulary is filled up to the rows of the embedding, which are
  // only now known to be in the files.
  const auto vocabulary = ReadHfVocabulary(folder, config.vocab_size);
  if (vocabulary.ok()) {
    builder.SetTokenizer(vocabulary->vocabulary);
    builder.SetChatTemplate(vocabulary->chat_template);
  } else if (!absl::IsNotFound(vocabulary.status())) {
    return vocabulary.status();
  }
  return builder.Finish(context_tokens,
                        packed ? "as GGUF of the same grids" : "");
}

}  // namespace onegrid::model
