#include "services/exporter/adapter.h"

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::exporter {
namespace {

using nlohmann::json;

absl::Status Corrupt(absl::string_view path, absl::string_view item,
                     absl::string_view what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument, "CORRUPT_FILE",
                           absl::StrCat(path, ": ", item, " ", what),
                           {{"item", std::string(item)}});
}

// True if the field is absent, null, false, "none" or empty.
bool IsOff(const json& config, const char* field) {
  const auto found = config.find(field);
  if (found == config.end() || found->is_null()) return true;
  if (found->is_boolean()) return !found->get<bool>();
  if (found->is_string()) return found->get<std::string>() == "none";
  return found->empty();
}

}  // namespace

absl::Status Adapter::ReadConfig(const std::string& config_path) {
  ASSIGN_OR_RETURN(config_json_, common::ReadFile(config_path));
  const json config = json::parse(config_json_, nullptr, false);
  if (!config.is_object()) {
    return Corrupt(config_path, "the file", "is not a JSON object");
  }
  const auto rank = config.find("r");
  const auto alpha = config.find("lora_alpha");
  if (rank == config.end() || !rank->is_number_integer()) {
    return Corrupt(config_path, "r", "is missing or not an integer");
  }
  if (alpha == config.end() || !alpha->is_number()) {
    return Corrupt(config_path, "lora_alpha", "is missing or not a number");
  }
  for (const char* field : {"use_rslora", "use_dora", "bias", "rank_pattern",
                            "alpha_pattern", "modules_to_save"}) {
    if (!IsOff(config, field)) {
      return Corrupt(config_path, field, "is not supported");
    }
  }
  rank_ = rank->get<int64_t>();
  alpha_ = alpha->get<float>();
  return absl::OkStatus();
}

absl::Status Adapter::AddPair(const std::string& path,
                              const model::LinearSpec& spec) {
  const std::string stem = absl::StrCat("base_model.model.", spec.hf_name);
  AdapterPair pair{spec,
                   rank_,
                   absl::StrCat(stem, ".lora_A.weight"),
                   absl::StrCat(stem, ".lora_B.weight"),
                   {},
                   {}};
  const auto* a = file_->Find(pair.a_name);
  const auto* b = file_->Find(pair.b_name);
  if (a == nullptr && b == nullptr) return absl::OkStatus();
  if (a == nullptr) return Corrupt(path, pair.a_name, "is missing");
  if (b == nullptr) return Corrupt(path, pair.b_name, "is missing");
  if (a->dtype != "F32" || a->shape != std::vector<int64_t>{rank_, spec.in}) {
    return Corrupt(path, pair.a_name,
                   absl::StrCat("should be F32 [", rank_, ", ", spec.in, "]"));
  }
  if (b->dtype != "F32" || b->shape != std::vector<int64_t>{spec.out, rank_}) {
    return Corrupt(path, pair.b_name,
                   absl::StrCat("should be F32 [", spec.out, ", ", rank_, "]"));
  }
  pair.a = a->data;
  pair.b = b->data;
  pairs_.push_back(std::move(pair));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Adapter>> Adapter::Open(
    const std::string& path, const std::string& config_path,
    const std::vector<model::LinearSpec>& linears) {
  auto adapter = std::unique_ptr<Adapter>(new Adapter);
  RETURN_IF_ERROR(adapter->ReadConfig(config_path));
  ASSIGN_OR_RETURN(adapter->file_, model::SafetensorsFile::Open(path));
  for (const model::LinearSpec& spec : linears) {
    RETURN_IF_ERROR(adapter->AddPair(path, spec));
  }
  if (adapter->pairs_.size() * 2 != adapter->file_->names().size()) {
    return Corrupt(
        path, "the file",
        absl::StrCat("has ", adapter->file_->names().size(),
                     " tensors, of which ", adapter->pairs_.size() * 2,
                     " belong to linear layers of the base"));
  }
  if (adapter->pairs_.empty()) return Corrupt(path, "the file", "is empty");
  return adapter;
}

}  // namespace onegrid::exporter
