#include "services/model/gemma_quant_config.h"

#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "re2/re2.h"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {
namespace {

using nlohmann::json;

// All of them are tried on every module.
constexpr size_t kPatternsMax = 200;

bool Has(const json& object, const char* key) {
  return object.contains(key) && !object[key].is_null();
}

std::string Text(const json& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/true);
}

}  // namespace

class GemmaQuantConfig::Parser {
 public:
  explicit Parser(const std::string& path) : path_(path) {}

  absl::StatusOr<GemmaQuantConfig> Parse(
      const json& root, const std::vector<std::string>& pattern_order,
      bool tied_head) const;

 private:
  absl::Status Corrupt(const std::string& what) const {
    return CorruptFile(path_, absl::StrCat("quantization_config: ", what));
  }
  absl::Status Unsupported(const std::string& what) const {
    return common::MakeError(
        absl::StatusCode::kUnimplemented, "UNSUPPORTED_QUANTIZATION",
        absl::StrCat(path_, ": quantization_config: ", what),
        {{"path", path_}});
  }
  absl::Status ReadBits(const std::string& where, const json& object,
                        int& bits) const;
  absl::StatusOr<std::shared_ptr<const RE2>> Compile(
      const std::string& where, const std::string& pattern) const;
  absl::Status ReadPatterns(const json& modules,
                            const std::vector<std::string>& order,
                            GemmaQuantConfig& config) const;
  absl::Status ReadSkipped(const json& names, GemmaQuantConfig& config) const;

  const std::string& path_;
};

absl::Status GemmaQuantConfig::Parser::ReadBits(const std::string& where,
                                                const json& object,
                                                int& bits) const {
  const auto found = object.find("num_bits");
  if (found == object.end()) return absl::OkStatus();
  if (*found != 2 && *found != 4 && *found != 8) {
    return Unsupported(absl::StrCat(where, "num_bits: found ", Text(*found),
                                    ", supported: 2, 4 and 8"));
  }
  bits = found->get<int>();
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const RE2>> GemmaQuantConfig::Parser::Compile(
    const std::string& where, const std::string& pattern) const {
  RE2::Options options;
  options.set_log_errors(false);
  auto compiled = std::make_shared<const RE2>(pattern, options);
  if (compiled->ok()) return compiled;
  return Unsupported(absl::StrCat(where, ": the expression ", Text(pattern),
                                  " cannot be used: ", compiled->error()));
}

absl::Status GemmaQuantConfig::Parser::ReadPatterns(
    const json& modules, const std::vector<std::string>& order,
    GemmaQuantConfig& config) const {
  const std::string where = "module_quant_configs";
  if (!modules.is_object() || modules.size() > kPatternsMax) {
    return Corrupt(absl::StrCat(where, ": expected an object of at most ",
                                kPatternsMax, " members"));
  }
  std::vector<std::string> groups;
  std::set<std::string> seen;
  for (const std::string& pattern : order) {
    if (!modules.contains(pattern) || !seen.insert(pattern).second) continue;
    // Alone it must be an expression, too: ")(" would change the others'.
    RETURN_IF_ERROR(Compile(where, pattern).status());
    const json& options = modules[pattern];
    if (!options.is_object()) {
      return Corrupt(absl::StrCat(where, ": expected objects, found ",
                                  Text(options), " for ", Text(pattern)));
    }
    for (const auto& [key, value] : options.items()) {
      if (key == "num_bits") continue;
      return Unsupported(absl::StrCat(where, ": ", Text(pattern), ": ",
                                      Text(key), " is not known"));
    }
    int bits = config.bits_;
    RETURN_IF_ERROR(ReadBits(absl::StrCat(where, ": ", Text(pattern), ": "),
                             options, bits));
    groups.push_back(absl::StrCat("(?P<g", groups.size(), ">", pattern, ")"));
    config.pattern_bits_.push_back(bits);
  }
  if (groups.size() != modules.size()) {
    return Corrupt(absl::StrCat(where, ": its keys are not text"));
  }
  if (groups.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(config.patterns_,
                   Compile(where, absl::StrJoin(groups, "|")));
  for (size_t i = 0; i < groups.size(); ++i) {
    config.pattern_groups_.push_back(
        config.patterns_->NamedCapturingGroups().at(absl::StrCat("g", i)));
  }
  return absl::OkStatus();
}

absl::Status GemmaQuantConfig::Parser::ReadSkipped(
    const json& names, GemmaQuantConfig& config) const {
  const std::string where = "modules_to_not_convert";
  if (!names.is_array() || names.size() > kPatternsMax) {
    return Corrupt(absl::StrCat(where, ": expected a list of at most ",
                                kPatternsMax, " names"));
  }
  for (const json& name : names) {
    if (!name.is_string()) {
      return Corrupt(absl::StrCat(where, ": expected strings"));
    }
    Skipped skipped{name.get<std::string>(), nullptr, nullptr};
    ASSIGN_OR_RETURN(skipped.with_dot, Compile(where, skipped.text));
    ASSIGN_OR_RETURN(
        skipped.whole_parts,
        Compile(where, absl::StrCat("(?:", skipped.text, ")(?:\\.|$)")));
    config.skipped_.push_back(std::move(skipped));
  }
  return absl::OkStatus();
}

absl::StatusOr<GemmaQuantConfig> GemmaQuantConfig::Parser::Parse(
    const json& root, const std::vector<std::string>& pattern_order,
    bool tied_head) const {
  if (!root.is_object()) return Corrupt("expected an object");
  GemmaQuantConfig config;
  RETURN_IF_ERROR(ReadBits("", root, config.bits_));
  if (Has(root, "quantize_embeddings")) {
    if (!root["quantize_embeddings"].is_boolean()) {
      return Corrupt("quantize_embeddings: expected true or false");
    }
    config.embeddings_ = root["quantize_embeddings"].get<bool>();
  }
  if (Has(root, "module_quant_configs")) {
    RETURN_IF_ERROR(
        ReadPatterns(root["module_quant_configs"], pattern_order, config));
  }
  if (Has(root, "modules_to_not_convert")) {
    RETURN_IF_ERROR(ReadSkipped(root["modules_to_not_convert"], config));
    return config;
  }
  // What transformers leaves out of itself.
  json names = {"lm_head"};
  if (tied_head) names.push_back("embed_tokens");
  RETURN_IF_ERROR(ReadSkipped(names, config));
  return config;
}

absl::StatusOr<GemmaQuantConfig> GemmaQuantConfig::Parse(
    absl::string_view text, const std::vector<std::string>& pattern_order,
    bool tied_head, const std::string& path) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  return Parser(path).Parse(root, pattern_order, tied_head);
}

bool GemmaQuantConfig::IsSkipped(absl::string_view module) const {
  const re2::StringPiece name(module.data(), module.size());
  for (const Skipped& skipped : skipped_) {
    if (absl::EndsWith(module, skipped.text) ||
        skipped.whole_parts->Match(name, 0, name.size(), RE2::ANCHOR_START,
                                   nullptr, 0)) {
      return true;
    }
    for (size_t dot = module.find('.'); dot != absl::string_view::npos;
         dot = module.find('.', dot + 1)) {
      if (RE2::FullMatch(name.substr(0, dot + 1), *skipped.with_dot)) {
        return true;
      }
    }
  }
  return false;
}

int GemmaQuantConfig::Bits(absl::string_view module, bool embedding) const {
  if ((embedding && !embeddings_) || IsSkipped(module)) return 0;
  if (patterns_ == nullptr) return bits_;
  const re2::StringPiece name(module.data(), module.size());
  std::vector<re2::StringPiece> groups(
      static_cast<size_t>(1 + patterns_->NumberOfCapturingGroups()));
  if (!patterns_->Match(name, 0, name.size(), RE2::UNANCHORED, groups.data(),
                        static_cast<int>(groups.size()))) {
    return bits_;
  }
  for (size_t i = 0; i < pattern_groups_.size(); ++i) {
    if (groups[static_cast<size_t>(pattern_groups_[i])].data() != nullptr) {
      return pattern_bits_[i];
    }
  }
  return bits_;
}

}  // namespace onegrid::model
