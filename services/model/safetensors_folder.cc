#include "services/model/safetensors_folder.h"

#include <sys/stat.h>

#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {
namespace {

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

}  // namespace

std::optional<quant::GgmlType> FloatType(const std::string& dtype) {
  if (dtype == "BF16") return quant::GgmlType::kBF16;
  if (dtype == "F16") return quant::GgmlType::kF16;
  if (dtype == "F32") return quant::GgmlType::kF32;
  return std::nullopt;
}

std::optional<std::string> TextModelName(const std::string& name) {
  // In newer files and in older ones.
  const std::pair<const char*, const char*> prefixes[] = {
      {"model.language_model.", "model."},
      {"language_model.model.", "model."},
      {"language_model.lm_head.", "lm_head."},
      {"lm_head.", "lm_head."}};
  for (const auto& [stored, text] : prefixes) {
    absl::string_view rest = name;
    if (absl::ConsumePrefix(&rest, stored)) return absl::StrCat(text, rest);
  }
  return std::nullopt;
}

const SafetensorsFile::Tensor* SafetensorsFolder::Find(
    const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return nullptr;
  const auto stored = stored_names_.find(name);
  return found->second->Find(stored == stored_names_.end() ? name
                                                           : stored->second);
}

absl::Status SafetensorsFolder::KeepTextModel() {
  std::map<std::string, const SafetensorsFile*> kept;
  for (const auto& [name, file] : tensors_) {
    const std::optional<std::string> renamed = TextModelName(name);
    if (!renamed.has_value()) continue;
    kept[*renamed] = file;
    stored_names_[*renamed] = name;
  }
  if (kept.empty()) {
    return absl::NotFoundError("no tensor of a text model (language_model)");
  }
  tensors_ = std::move(kept);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<SafetensorsFolder>> SafetensorsFolder::Open(
    const std::string& folder) {
  auto weights = std::unique_ptr<SafetensorsFolder>(new SafetensorsFolder);
  const std::string single = absl::StrCat(folder, "/model.safetensors");
  const std::string index = absl::StrCat(single, ".index.json");
  RETURN_IF_ERROR(Exists(index) ? weights->OpenShards(folder, index)
                                : weights->AddFile(single));
  return weights;
}

absl::Status SafetensorsFolder::OpenShards(const std::string& folder,
                                           const std::string& index_path) {
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
    const std::string path = absl::StrCat(folder, "/", shard);
    if (!Exists(path)) {
      return CorruptFile(index_path,
                         absl::StrCat("the shard ", shard, " is missing"));
    }
    RETURN_IF_ERROR(AddFile(path));
  }
  for (const auto& [tensor, shard] : map) {
    const auto found = tensors_.find(tensor);
    if (found == tensors_.end() ||
        found->second->path() != absl::StrCat(folder, "/", shard)) {
      return CorruptFile(
          index_path, absl::StrCat("tensor '", tensor, "' is not in ", shard));
    }
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFolder::AddFile(const std::string& path) {
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

}  // namespace onegrid::model
