#include "services/model/peft_config.h"

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/json_depth.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {
namespace {

// Keeps the order of keys, in which patterns are tried.
using json = nlohmann::ordered_json;

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

// Several times what patterns for every linear of a large model take.
constexpr uintmax_t kBytesMax = uintmax_t{1} << 20;

// Fields that change what the matrices mean, or that name other tensors, if
// they are on.
constexpr const char* kUnsupported[] = {"use_dora",
                                        "bias",
                                        "lora_bias",
                                        "modules_to_save",
                                        "trainable_token_indices",
                                        "target_parameters",
                                        "layer_replication",
                                        "alora_invocation_tokens",
                                        "use_qalora",
                                        "use_bdlora",
                                        "arrow_config",
                                        "kasa_config",
                                        "monteclora_config",
                                        "velora_config"};
// The init_lora_weights that leave W as it is; others take a part out of it,
// which the adapter brings back.
constexpr const char* kPlainInits[] = {"gaussian", "eva", "orthogonal"};

// True if the field is absent, null, false, "none" or empty.
bool IsOff(const json& config, const char* field) {
  const auto found = config.find(field);
  if (found == config.end() || found->is_null()) return true;
  if (found->is_boolean()) return !found->get<bool>();
  if (found->is_string()) return found->get<std::string>() == "none";
  return found->empty();
}

bool IsIn(const Range& range, const json& number) {
  if (!number.is_number()) return false;
  const double value = number.get<double>();
  return value >= range.min && value <= range.max &&
         (!range.whole || value == std::floor(value));
}

// The glob (see NamePattern) that fits what the regular expression fits; empty
// if it is none of those that are read. *whole: it began with ^.
std::string GlobOf(absl::string_view key, bool* whole) {
  *whole = absl::ConsumePrefix(&key, "^");
  if (!absl::EndsWith(key, "\\$")) absl::ConsumeSuffix(&key, "$");
  std::string glob;
  while (!key.empty()) {
    if (absl::ConsumePrefix(&key, ".*")) {
      glob += '*';
    } else if (absl::ConsumePrefix(&key, "\\d+") ||
               absl::ConsumePrefix(&key, "[0-9]+")) {
      // A glob's number takes all digits there are, and one before or behind
      // would be among them.
      const auto is_digit = [](char c) {
        return absl::ascii_isdigit(static_cast<unsigned char>(c));
      };
      if ((!glob.empty() && (is_digit(glob.back()) || glob.back() == '}')) ||
          (!key.empty() && is_digit(key[0]))) {
        return "";
      }
      glob += "{0-1000000000}";
    } else if (absl::ConsumePrefix(&key, "\\.")) {
      glob += '.';
    } else if (absl::ascii_isalnum(static_cast<unsigned char>(key[0])) ||
               key[0] == '_' || key[0] == '.') {
      glob += key[0];
      key.remove_prefix(1);
    } else {
      return "";
    }
    // A number of times, or none at all.
    if (absl::StartsWith(key, "*") || absl::StartsWith(key, "+") ||
        absl::StartsWith(key, "?")) {
      return "";
    }
  }
  return glob;
}

}  // namespace

// One call of Read.
class PeftConfigReader {
 public:
  explicit PeftConfigReader(const std::string& path) : path_(path) {}

  absl::StatusOr<PeftConfig> Read();

 private:
  absl::Status Unsupported(const std::string& field,
                           absl::string_view what) const {
    return common::MakeError(absl::StatusCode::kInvalidArgument,
                             "UNSUPPORTED_ADAPTER",
                             absl::StrCat(path_, ": ", field, " ", what),
                             {{"path", path_}, {"field", field}});
  }
  absl::Status ReadNumber(const json& config, const char* field,
                          const Range& range, double* value) const;
  absl::Status CheckSupported(const json& config) const;
  // Appends the entries of an optional object of numbers, in the file's order.
  absl::Status ReadPattern(const json& config, const char* field,
                           const Range& range,
                           std::vector<PeftConfig::Entry>* entries) const;

  const std::string& path_;
};

absl::Status PeftConfigReader::ReadNumber(const json& config, const char* field,
                                          const Range& range,
                                          double* value) const {
  const auto found = config.find(field);
  if (found == config.end() || !IsIn(range, *found)) {
    return CorruptFile(path_,
                       absl::StrCat(field, " is missing or not ", range.text));
  }
  *value = found->get<double>();
  return absl::OkStatus();
}

absl::Status PeftConfigReader::CheckSupported(const json& config) const {
  const auto type = config.find("peft_type");
  if (type != config.end() && *type != "LORA") {
    return Unsupported("peft_type", "is not LORA");
  }
  if (!IsOff(config, "use_dora")) {
    return Unsupported("use_dora",
                       "is not supported: the adapter files of llama.cpp "
                       "cannot carry magnitude vectors");
  }
  for (const char* field : kUnsupported) {
    if (!IsOff(config, field)) return Unsupported(field, "is not supported");
  }
  const auto init = config.find("init_lora_weights");
  if (init == config.end() || init->is_boolean() || init->is_null()) {
    return absl::OkStatus();
  }
  for (const char* plain : kPlainInits) {
    if (*init == plain) return absl::OkStatus();
  }
  return Unsupported("init_lora_weights",
                     "is one that changes the base's weights");
}

absl::Status PeftConfigReader::ReadPattern(
    const json& config, const char* field, const Range& range,
    std::vector<PeftConfig::Entry>* entries) const {
  if (IsOff(config, field)) return absl::OkStatus();
  const json& object = config[field];
  if (!object.is_object()) {
    return CorruptFile(path_, absl::StrCat(field, " is not an object"));
  }
  for (const auto& [key, value] : object.items()) {
    const std::string item = absl::StrCat(field, " \"", key, "\"");
    if (!IsIn(range, value)) {
      return CorruptFile(path_, absl::StrCat(item, " is not ", range.text));
    }
    bool whole = false;
    const std::string glob = GlobOf(key, &whole);
    if (glob.empty()) {
      return Unsupported(item,
                         "is not a module's name, its end, or one with .* or "
                         "\\d+ in it");
    }
    PeftConfig::Entry entry = {{}, value.get<double>()};
    ASSIGN_OR_RETURN(NamePattern pattern, NamePattern::Parse(glob));
    entry.patterns.push_back(std::move(pattern));
    if (!whole) {
      ASSIGN_OR_RETURN(NamePattern end, NamePattern::Parse("*." + glob));
      entry.patterns.push_back(std::move(end));
    }
    entries->push_back(std::move(entry));
  }
  return absl::OkStatus();
}

absl::StatusOr<PeftConfig> PeftConfigReader::Read() {
  PeftConfig read;
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path_, error);
  if (!error && size > kBytesMax) {
    return CorruptFile(path_, absl::StrCat("has ", size, " bytes, at most ",
                                           kBytesMax, " are read"));
  }
  ASSIGN_OR_RETURN(read.text_, common::ReadFile(path_));
  // The library copies and writes values by recursion.
  if (common::NestsDeeperThan(read.text_, common::kJsonDepthMax)) {
    return CorruptFile(
        path_, absl::StrCat("is nested deeper than ", common::kJsonDepthMax));
  }
  const json config = json::parse(read.text_, nullptr, false);
  if (!config.is_object()) return CorruptFile(path_, "is not a JSON object");
  RETURN_IF_ERROR(CheckSupported(config));
  double rank = 0;
  RETURN_IF_ERROR(ReadNumber(config, "r", kRank, &rank));
  RETURN_IF_ERROR(ReadNumber(config, "lora_alpha", kAlpha, &read.alpha_));
  RETURN_IF_ERROR(ReadPattern(config, "rank_pattern", kRank, &read.ranks_));
  RETURN_IF_ERROR(ReadPattern(config, "alpha_pattern", kAlpha, &read.alphas_));
  const auto rslora = config.find("use_rslora");
  if (rslora != config.end() && !rslora->is_null() && !rslora->is_boolean()) {
    return CorruptFile(path_, "use_rslora is neither true nor false");
  }
  read.use_rslora_ = !IsOff(config, "use_rslora");
  read.rank_ = static_cast<int64_t>(rank);
  return read;
}

absl::StatusOr<PeftConfig> PeftConfig::Read(const std::string& path) {
  return PeftConfigReader(path).Read();
}

double PeftConfig::ValueOf(absl::string_view module,
                           const std::vector<Entry>& entries,
                           double otherwise) {
  for (const Entry& entry : entries) {
    for (const NamePattern& pattern : entry.patterns) {
      if (pattern.Matches(module)) return entry.value;
    }
  }
  return otherwise;
}

int64_t PeftConfig::RankOf(absl::string_view module) const {
  return static_cast<int64_t>(
      ValueOf(module, ranks_, static_cast<double>(rank_)));
}

double PeftConfig::AlphaOf(absl::string_view module) const {
  return ValueOf(module, alphas_, alpha_);
}

}  // namespace onegrid::model
