#include "services/model/ct_config.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"
#include "re2/re2.h"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {
namespace {

using nlohmann::json;

constexpr char kFormat[] = "pack-quantized";
// Every target is tried on every module.
constexpr size_t kTargetsMax = 20'000;

// Members of a group's weights that say nothing about the packed form.
constexpr const char* kWithoutEffect[] = {"observer", "observer_kwargs",
                                          "scale_dtype", "zp_dtype"};

bool Has(const json& object, const char* key) {
  return object.contains(key) && !object[key].is_null();
}

std::string Text(const json& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/true);
}

}  // namespace

class CtConfig::Parser {
 public:
  explicit Parser(const std::string& path) : path_(path) {}

  absl::StatusOr<CtConfig> Parse(const json& root);

 private:
  absl::Status CheckRoot(const json& root) const;
  absl::StatusOr<Group> ParseGroup(const std::string& name, const json& group,
                                   const json& root) const;
  absl::StatusOr<CtScheme> ParseWeights(const std::string& name,
                                        const json& weights) const;
  absl::Status CheckWeights(const std::string& name, const json& weights) const;
  absl::StatusOr<int64_t> GroupSize(const std::string& name,
                                    const json& weights) const;
  absl::StatusOr<std::vector<Target>> ParseTargets(const std::string& name,
                                                   const json& targets) const;

  absl::Status Corrupt(const std::string& what) const {
    return CorruptFile(path_, absl::StrCat("quantization_config: ", what));
  }
  absl::Status Unsupported(const std::string& what) const {
    return common::MakeError(
        absl::StatusCode::kUnimplemented, "UNSUPPORTED_QUANTIZATION",
        absl::StrCat(path_, ": quantization_config: ", what),
        {{"path", path_}});
  }
  // That `object[key]`, if it is there, is what this reader takes.
  absl::Status Expect(const std::string& where, const json& object,
                      const char* key, const json& expected) const {
    if (!Has(object, key) || object[key] == expected) return absl::OkStatus();
    return Unsupported(absl::StrCat(where, key, ": found ", Text(object[key]),
                                    ", supported: ", Text(expected)));
  }

  const std::string& path_;
};

absl::Status CtConfig::Parser::CheckRoot(const json& root) const {
  if (!root.is_object() || !root.contains("quant_method")) {
    return Corrupt("expected an object with a quant_method");
  }
  RETURN_IF_ERROR(Expect("", root, "quant_method", "compressed-tensors"));
  for (const char* key :
       {"kv_cache_scheme", "transform_config", "moe_sparsity_config"}) {
    if (Has(root, key) && !root[key].empty()) {
      return Unsupported(absl::StrCat(key, ": expected none"));
    }
  }
  if (Has(root, "sparsity_config") && !root["sparsity_config"].empty()) {
    const json& sparsity = root["sparsity_config"];
    if (!sparsity.is_object()) return Corrupt("sparsity_config: no object");
    RETURN_IF_ERROR(Expect("sparsity_config.", sparsity, "format", "dense"));
  }
  if (!Has(root, "config_groups") || !root["config_groups"].is_object() ||
      root["config_groups"].empty()) {
    return Corrupt("expected an object config_groups that is not empty");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<CtConfig::Target>> CtConfig::Parser::ParseTargets(
    const std::string& name, const json& targets) const {
  if (!targets.is_array() || targets.size() > kTargetsMax) {
    return Corrupt(absl::StrCat(name, ": expected a list of at most ",
                                kTargetsMax, " names"));
  }
  std::vector<Target> parsed;
  for (const json& target : targets) {
    if (!target.is_string()) {
      return Corrupt(absl::StrCat(name, ": expected strings"));
    }
    parsed.push_back({target.get<std::string>(), nullptr});
    absl::string_view text = parsed.back().text;
    if (!absl::ConsumePrefix(&text, "re:")) continue;
    RE2::Options options;
    options.set_log_errors(false);
    const auto pattern = std::make_shared<RE2>(
        re2::StringPiece(text.data(), text.size()), options);
    if (!pattern->ok()) {
      return Unsupported(absl::StrCat(name, ": the expression ", Text(target),
                                      " cannot be used: ", pattern->error()));
    }
    parsed.back().pattern = pattern;
  }
  return parsed;
}

absl::Status CtConfig::Parser::CheckWeights(const std::string& name,
                                            const json& weights) const {
  const std::string where = absl::StrCat(name, ".weights.");
  for (const auto& [key, value] : weights.items()) {
    const bool known =
        std::find(std::begin(kWithoutEffect), std::end(kWithoutEffect), key) !=
            std::end(kWithoutEffect) ||
        key == "num_bits" || key == "type" || key == "symmetric" ||
        key == "strategy" || key == "group_size" || key == "dynamic" ||
        key == "actorder" || key == "block_structure";
    if (!known) return Unsupported(absl::StrCat(where, key, " is not known"));
  }
  RETURN_IF_ERROR(Expect(where, weights, "type", "int"));
  RETURN_IF_ERROR(Expect(where, weights, "symmetric", true));
  RETURN_IF_ERROR(Expect(where, weights, "dynamic", false));
  if (Has(weights, "block_structure")) {
    return Unsupported(absl::StrCat(where, "block_structure: expected none"));
  }
  // Calibrated in another order, stored in the usual one.
  if (Has(weights, "actorder") &&
      (weights["actorder"] == "weight" || weights["actorder"] == "static")) {
    return absl::OkStatus();
  }
  return Expect(where, weights, "actorder", false);
}

absl::StatusOr<int64_t> CtConfig::Parser::GroupSize(const std::string& name,
                                                    const json& weights) const {
  const std::string where = absl::StrCat(name, ".weights.group_size");
  if (Has(weights, "group_size") &&
      !weights["group_size"].is_number_integer()) {
    return Corrupt(absl::StrCat(where, ": expected a number"));
  }
  const int64_t size =
      Has(weights, "group_size") ? weights["group_size"].get<int64_t>() : 0;
  json strategy = size > 0 ? "group" : size == -1 ? "channel" : "tensor";
  if (Has(weights, "strategy")) strategy = weights["strategy"];
  if (strategy == "channel" && size <= 0) return 0;
  if (strategy == "group") {
    if (size > 0) return size;
    return Corrupt(absl::StrCat(where, ": expected a positive number"));
  }
  return Unsupported(absl::StrCat(name, ".weights.strategy: found ",
                                  Text(strategy), " with group size ", size,
                                  ", supported: \"group\", and \"channel\" "
                                  "without one"));
}

absl::StatusOr<CtScheme> CtConfig::Parser::ParseWeights(
    const std::string& name, const json& weights) const {
  RETURN_IF_ERROR(CheckWeights(name, weights));
  CtScheme scheme;
  ASSIGN_OR_RETURN(scheme.group, GroupSize(name, weights));
  const json bits =
      weights.contains("num_bits") ? weights["num_bits"] : json(8);
  if (bits != 2 && bits != 4 && bits != 8) {
    return Unsupported(absl::StrCat(name, ".weights.num_bits: found ",
                                    Text(bits), ", supported: 2, 4 and 8"));
  }
  scheme.bits = bits.get<int>();
  return scheme;
}

absl::StatusOr<CtConfig::Group> CtConfig::Parser::ParseGroup(
    const std::string& name, const json& group, const json& root) const {
  if (group.is_array()) {
    return Unsupported(
        absl::StrCat(name, ": a preset by its name, expected a scheme"));
  }
  if (!group.is_object() || !Has(group, "weights") ||
      !group["weights"].is_object() || !Has(group, "targets")) {
    return Corrupt(absl::StrCat(name, ": expected targets and weights"));
  }
  for (const char* key : {"input_activations", "output_activations"}) {
    if (!Has(group, key)) continue;
    return Unsupported(
        absl::StrCat(name, ".", key, ": quantized, supported: none"));
  }
  // "mixed-precision" leaves it to the groups.
  RETURN_IF_ERROR(Has(group, "format") ? Expect(absl::StrCat(name, "."), group,
                                                "format", kFormat)
                                       : Expect("", root, "format", kFormat));
  ASSIGN_OR_RETURN(const CtScheme scheme, ParseWeights(name, group["weights"]));
  ASSIGN_OR_RETURN(
      std::vector<Target> targets,
      ParseTargets(absl::StrCat(name, ".targets"), group["targets"]));
  return Group{name, scheme, std::move(targets)};
}

absl::StatusOr<CtConfig> CtConfig::Parser::Parse(const json& root) {
  RETURN_IF_ERROR(CheckRoot(root));
  CtConfig config;
  config.path_ = path_;
  size_t targets = 0;
  for (const auto& [name, group] : root["config_groups"].items()) {
    ASSIGN_OR_RETURN(Group parsed, ParseGroup(name, group, root));
    targets += parsed.targets.size();
    config.groups_.push_back(std::move(parsed));
  }
  if (Has(root, "ignore")) {
    ASSIGN_OR_RETURN(config.ignored_, ParseTargets("ignore", root["ignore"]));
    targets += config.ignored_.size();
  }
  if (targets > kTargetsMax) {
    return Corrupt(
        absl::StrCat(targets, " targets, expected at most ", kTargetsMax));
  }
  if (!Has(root, "format")) {
    for (const auto& [name, group] : root["config_groups"].items()) {
      if (!Has(group, "format")) return Corrupt("format is missing");
    }
  }
  return config;
}

absl::StatusOr<CtConfig> CtConfig::Parse(absl::string_view text,
                                         const std::string& path) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  return Parser(path).Parse(root);
}

// 0: no target fits; 1: the class; 2: an expression; 3: the name.
int CtConfig::Exactness(const std::vector<Target>& targets,
                        const CtModule& module) {
  int best = 0;
  for (const Target& target : targets) {
    if (target.pattern != nullptr) {
      const re2::StringPiece name(module.name);
      if (best < 2 && target.pattern->Match(name, 0, name.size(),
                                            RE2::ANCHOR_START, nullptr, 0)) {
        best = 2;
      }
    } else if (target.text == module.name) {
      return 3;
    } else if (target.text == module.kind) {
      best = std::max(best, 1);
    }
  }
  return best;
}

absl::StatusOr<const CtConfig::Group*> CtConfig::GroupOf(
    const CtModule& module, std::vector<bool>& used) const {
  if (Exactness(ignored_, module) > 0) return nullptr;
  const Group* found = nullptr;
  int best = 0;
  for (size_t i = 0; i < groups_.size(); ++i) {
    const Group& group = groups_[i];
    const int exactness = Exactness(group.targets, module);
    if (exactness > 0) used[i] = true;
    if (exactness < best || exactness == 0) continue;
    if (exactness == best && !(found->scheme == group.scheme)) {
      return CorruptFile(
          path_, absl::StrCat("quantization_config: the config groups ",
                              found->name, " and ", group.name, " both name ",
                              module.name, " and do not agree"));
    }
    found = &group;
    best = exactness;
  }
  return found;
}

absl::StatusOr<std::map<std::string, CtScheme>> CtConfig::Assign(
    absl::Span<const CtModule> modules) const {
  std::map<std::string, CtScheme> schemes;
  std::vector<bool> used(groups_.size());
  for (const CtModule& module : modules) {
    ASSIGN_OR_RETURN(const Group* group, GroupOf(module, used));
    if (group != nullptr) schemes[module.name] = group->scheme;
  }
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (used[i]) continue;
    return CorruptFile(
        path_, absl::StrCat("quantization_config: the config group ",
                            groups_[i].name, " names no module of this model"));
  }
  return schemes;
}

}  // namespace onegrid::model
