#include "services/exporter/adapter.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/json_depth.h"

namespace onegrid::exporter {
namespace {

// Keeps the order of keys, in which patterns are tried.
using json = nlohmann::ordered_json;
using Pattern = std::vector<std::pair<std::string, double>>;

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

// A layer's own value, or the one that holds for all.
double ValueFor(const std::string& module, const Pattern& pattern,
                double otherwise) {
  for (const auto& [key, value] : pattern) {
    if (module == key || absl::EndsWith(module, "." + key)) return value;
  }
  return otherwise;
}

// What a number of the config may be.
struct Range {
  double min;
  double max;
  bool whole;
  const char* text;
};
constexpr Range kRank = {1, 1 << 20, true, "a whole number from 1 to 1048576"};
// However it is divided by ranks, it stays a float, as llama.cpp keeps it.
constexpr Range kAlpha = {1e-20, 1e20, false, "a number from 1e-20 to 1e20"};

bool IsIn(const Range& range, const json& number) {
  if (!number.is_number()) return false;
  const double value = number.get<double>();
  return value >= range.min && value <= range.max &&
         (!range.whole || value == std::floor(value));
}

bool IsPlainName(absl::string_view key) {
  return !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_';
  });
}

// Appends the entries of an optional object of numbers, in the file's order.
absl::Status ReadPattern(const std::string& path, const json& config,
                         const char* field, const Range& range,
                         Pattern* pattern) {
  if (IsOff(config, field)) return absl::OkStatus();
  const json& object = config[field];
  if (!object.is_object()) return Corrupt(path, field, "is not an object");
  for (const auto& [key, value] : object.items()) {
    if (!IsPlainName(key)) {
      return Corrupt(path, absl::StrCat(field, " \"", key, "\""),
                     "is not the name of a module or its end");
    }
    if (!IsIn(range, value)) {
      return Corrupt(path, absl::StrCat(field, " \"", key, "\""),
                     absl::StrCat("is not ", range.text));
    }
    pattern->emplace_back(key, value.get<double>());
  }
  return absl::OkStatus();
}

float EffectiveAlpha(const AdapterPair& pair) {
  return static_cast<float>(pair.scale * static_cast<double>(pair.rank));
}

}  // namespace

absl::Status Adapter::ReadConfig(const std::string& config_path) {
  ASSIGN_OR_RETURN(config_json_, common::ReadFile(config_path));
  // peft_export.h writes it again, which the library does by recursion.
  if (common::NestsDeeperThan(config_json_, common::kJsonDepthMax)) {
    return Corrupt(
        config_path, "the file",
        absl::StrCat("is nested deeper than ", common::kJsonDepthMax));
  }
  const json config = json::parse(config_json_, nullptr, false);
  if (!config.is_object()) {
    return Corrupt(config_path, "the file", "is not a JSON object");
  }
  const auto rank = config.find("r");
  const auto alpha = config.find("lora_alpha");
  if (rank == config.end() || !IsIn(kRank, *rank)) {
    return Corrupt(config_path, "r",
                   absl::StrCat("is missing or not ", kRank.text));
  }
  if (alpha == config.end() || !IsIn(kAlpha, *alpha)) {
    return Corrupt(config_path, "lora_alpha",
                   absl::StrCat("is missing or not ", kAlpha.text));
  }
  if (!IsOff(config, "use_dora")) {
    return Corrupt(config_path, "use_dora",
                   "is not supported: the adapter files of llama.cpp cannot "
                   "carry magnitude vectors");
  }
  for (const char* field : {"bias", "modules_to_save"}) {
    if (!IsOff(config, field)) {
      return Corrupt(config_path, field, "is not supported");
    }
  }
  RETURN_IF_ERROR(
      ReadPattern(config_path, config, "rank_pattern", kRank, &rank_pattern_));
  RETURN_IF_ERROR(ReadPattern(config_path, config, "alpha_pattern", kAlpha,
                              &alpha_pattern_));
  use_rslora_ = !IsOff(config, "use_rslora");
  rank_ = rank->get<int64_t>();
  alpha_ = alpha->get<double>();
  return absl::OkStatus();
}

absl::Status Adapter::AddPair(const std::string& path,
                              const model::LinearSpec& spec) {
  const std::string stem = absl::StrCat("base_model.model.", spec.hf_name);
  AdapterPair pair;
  pair.spec = spec;
  const double rank =
      ValueFor(spec.hf_name, rank_pattern_, static_cast<double>(rank_));
  pair.rank = static_cast<int64_t>(rank);
  pair.scale = ValueFor(spec.hf_name, alpha_pattern_, alpha_) /
               (use_rslora_ ? std::sqrt(rank) : rank);
  pair.a_name = absl::StrCat(stem, ".lora_A.weight");
  pair.b_name = absl::StrCat(stem, ".lora_B.weight");
  const auto* a = file_->Find(pair.a_name);
  const auto* b = file_->Find(pair.b_name);
  if (a == nullptr && b == nullptr) return absl::OkStatus();
  if (a == nullptr) return Corrupt(path, pair.a_name, "is missing");
  if (b == nullptr) return Corrupt(path, pair.b_name, "is missing");
  if (a->dtype != "F32" ||
      a->shape != std::vector<int64_t>{pair.rank, spec.in}) {
    return Corrupt(
        path, pair.a_name,
        absl::StrCat("should be F32 [", pair.rank, ", ", spec.in, "]"));
  }
  if (b->dtype != "F32" ||
      b->shape != std::vector<int64_t>{spec.out, pair.rank}) {
    return Corrupt(
        path, pair.b_name,
        absl::StrCat("should be F32 [", spec.out, ", ", pair.rank, "]"));
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
  adapter->ChooseGgufAlpha();
  return adapter;
}

void Adapter::ChooseGgufAlpha() {
  std::map<float, int64_t> votes;
  int64_t most = 0;
  for (const AdapterPair& pair : pairs_) {
    most = std::max(most, ++votes[EffectiveAlpha(pair)]);
  }
  for (const auto& [alpha, count] : votes) {
    if (count == most) gguf_alpha_ = alpha;
  }
}

std::vector<uint8_t> Adapter::GgufB(const AdapterPair& pair) const {
  std::vector<uint8_t> bytes(pair.b.begin(), pair.b.end());
  if (EffectiveAlpha(pair) == gguf_alpha_) return bytes;
  const double factor = pair.scale * static_cast<double>(pair.rank) /
                        static_cast<double>(gguf_alpha_);
  for (size_t at = 0; at < bytes.size(); at += sizeof(float)) {
    float value;
    std::memcpy(&value, &bytes[at], sizeof(value));
    value = static_cast<float>(factor * static_cast<double>(value));
    std::memcpy(&bytes[at], &value, sizeof(value));
  }
  return bytes;
}

}  // namespace onegrid::exporter
