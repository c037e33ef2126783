#include "services/model/hf_checkpoint.h"

#include <sys/stat.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "kernels/quant/dequantize.h"
#include "kernels/quant/ggml_types.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/hf_model_config.h"
#include "services/model/mapped_file.h"
#include "services/model/tensor_names.h"

namespace onegrid::model {
namespace {

using quant::GgmlType;

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

// The type that decodes the dtype's bytes; false if it is not a float type.
bool FloatType(const std::string& dtype, GgmlType* type) {
  if (dtype == "BF16") *type = GgmlType::kBF16;
  if (dtype == "F16") *type = GgmlType::kF16;
  if (dtype == "F32") *type = GgmlType::kF32;
  return dtype == "BF16" || dtype == "F16" || dtype == "F32";
}

absl::Status TensorError(const std::string& path, const std::string& tensor,
                         const std::string& what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "UNSUPPORTED_TENSOR",
                           absl::StrCat(path, ": tensor '", tensor, "' ", what),
                           {{"path", path}, {"tensor", tensor}});
}

std::string WeightName(const LinearSpec& spec) {
  return absl::StrCat(spec.hf_name, ".weight");
}

}  // namespace

absl::StatusOr<std::unique_ptr<HfCheckpoint>> HfCheckpoint::Open(
    const std::string& folder) {
  auto checkpoint = std::unique_ptr<HfCheckpoint>(new HfCheckpoint);
  checkpoint->folder_ = folder;
  const std::string path = absl::StrCat(folder, "/config.json");
  ASSIGN_OR_RETURN(const std::string config, common::ReadFile(path));
  ASSIGN_OR_RETURN(checkpoint->config_, ConfigFromHfJson(config, path));
  RETURN_IF_ERROR(checkpoint->OpenWeights());
  RETURN_IF_ERROR(checkpoint->CheckTensors());
  return checkpoint;
}

absl::Status HfCheckpoint::OpenWeights() {
  const std::string single = absl::StrCat(folder_, "/model.safetensors");
  const std::string index = absl::StrCat(single, ".index.json");
  if (Exists(index)) return OpenShards(index);
  return AddFile(single);
}

absl::Status HfCheckpoint::OpenShards(const std::string& index_path) {
  ASSIGN_OR_RETURN(const std::string text, common::ReadFile(index_path));
  const auto index =
      nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!index.is_object() || !index.contains("weight_map") ||
      !index["weight_map"].is_object()) {
    return CorruptFile(index_path, "expected an object with a weight_map");
  }
  std::map<std::string, std::string> map;
  std::set<std::string> shards;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    const std::string name =
        file.is_string() ? file.get<std::string>() : std::string();
    if (!absl::EndsWith(name, ".safetensors") ||
        name.find('/') != std::string::npos) {
      return CorruptFile(
          index_path, absl::StrCat("weight_map: '", tensor,
                                   "' is not in a safetensors file beside it"));
    }
    map[tensor] = name;
    shards.insert(name);
  }
  for (const std::string& shard : shards) {
    const std::string path = absl::StrCat(folder_, "/", shard);
    if (!Exists(path)) {
      return CorruptFile(index_path,
                         absl::StrCat("the shard ", shard, " is missing"));
    }
    RETURN_IF_ERROR(AddFile(path));
  }
  for (const auto& [tensor, shard] : map) {
    const auto found = tensors_.find(tensor);
    if (found == tensors_.end() ||
        found->second->path() != absl::StrCat(folder_, "/", shard)) {
      return CorruptFile(
          index_path, absl::StrCat("tensor '", tensor, "' is not in ", shard));
    }
  }
  return absl::OkStatus();
}

absl::Status HfCheckpoint::AddFile(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file,
                   SafetensorsFile::Open(path));
  for (const std::string& name : file->names()) {
    if (!tensors_.emplace(name, file.get()).second) {
      return CorruptFile(
          path, absl::StrCat("tensor '", name, "' is in another shard too"));
    }
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status HfCheckpoint::CheckTensor(
    const std::string& name, const std::vector<int64_t>& shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
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
  GgmlType type;
  if (!FloatType(tensor.dtype, &type)) {
    return TensorError(
        path, name,
        absl::StrCat("is ", tensor.dtype, ", expected BF16, F16 or F32"));
  }
  return absl::OkStatus();
}

absl::Status HfCheckpoint::CheckTensors() const {
  std::set<std::string> known = {kHfEmbedding};
  RETURN_IF_ERROR(
      CheckTensor(kHfEmbedding, {config_.vocab_size, config_.hidden}));
  for (const LinearSpec& spec : Gemma3Linears(config_)) {
    known.insert(WeightName(spec));
    RETURN_IF_ERROR(CheckTensor(WeightName(spec), {spec.out, spec.in}));
  }
  for (const NormSpec& spec : Gemma3Norms(config_)) {
    known.insert(spec.hf_name);
    RETURN_IF_ERROR(CheckTensor(spec.hf_name, {spec.size}));
  }
  for (const auto& [name, file] : tensors_) {
    if (known.count(name) == 0) {
      return TensorError(file->path(), name,
                         "is not part of this architecture");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> HfCheckpoint::Values(
    const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(
        absl::StrCat(folder_, ": no tensor '", name, "'"));
  }
  const SafetensorsFile::Tensor& tensor = *found->second->Find(name);
  GgmlType type = GgmlType::kF32;
  FloatType(tensor.dtype, &type);  // CheckTensors has seen to it
  const size_t width = type == GgmlType::kF32 ? 4 : 2;
  std::vector<float> values(tensor.data.size() / width);
  RETURN_IF_ERROR(quant::Dequantize(type, tensor.data, absl::MakeSpan(values)));
  return values;
}

}  // namespace onegrid::model
