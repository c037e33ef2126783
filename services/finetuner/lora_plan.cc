#include "services/finetuner/lora_plan.h"

#include <cmath>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/error_info.h"
#include "services/model/module_pattern.h"

namespace onegrid::finetuner {
namespace {

constexpr int64_t kRankMax = 256;
constexpr double kAlphaMin = 1e-6;
constexpr double kAlphaMax = 1e6;

absl::Status Invalid(const std::string& field, const std::string& what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "INVALID_HYPERPARAMETER",
                           absl::StrCat(field, " ", what), {{"field", field}});
}

// The linears that a pattern fits, as flags; an error if it fits none.
absl::StatusOr<std::vector<bool>> Fit(
    const std::string& field, const std::string& text,
    absl::Span<const model::LinearSpec> linears) {
  ASSIGN_OR_RETURN(const model::ModulePattern pattern,
                   model::ModulePattern::Parse(text));
  std::vector<bool> fits;
  bool any = false;
  for (const model::LinearSpec& linear : linears) {
    fits.push_back(pattern.Matches(linear.hf_name));
    any = any || fits.back();
  }
  if (!any) {
    return Invalid(field, absl::StrCat("names no linear of the model: ", text));
  }
  return fits;
}

// Kinds of which every linear is a target, and the names of other targets.
std::set<std::string> TargetModules(absl::Span<const model::LinearSpec> linears,
                                    absl::Span<const LoraShape> shapes) {
  std::set<std::string> partial;
  for (size_t i = 0; i < linears.size(); ++i) {
    if (shapes[i].rank == 0) partial.insert(linears[i].kind);
  }
  std::set<std::string> modules;
  for (size_t i = 0; i < linears.size(); ++i) {
    if (shapes[i].rank == 0) continue;
    modules.insert(partial.count(linears[i].kind) > 0 ? linears[i].hf_name
                                                      : linears[i].kind);
  }
  return modules;
}

}  // namespace

absl::StatusOr<LoraShape> MakeLoraShape(int64_t rank, double alpha,
                                        bool use_rslora) {
  if (rank < 1 || rank > kRankMax) {
    return Invalid("lora.rank",
                   absl::StrCat("is ", rank, ", must be in 1..", kRankMax));
  }
  // A NaN is in no range.
  if (!(alpha >= kAlphaMin && alpha <= kAlphaMax)) {
    return Invalid("lora.alpha", absl::StrCat("is ", alpha, ", must be in ",
                                              kAlphaMin, "..", kAlphaMax));
  }
  const auto r = static_cast<double>(rank);
  return LoraShape{rank, alpha, alpha / (use_rslora ? std::sqrt(r) : r)};
}

absl::StatusOr<std::vector<LoraShape>> PlanLora(
    absl::Span<const model::LinearSpec> linears, const LoraOptions& options) {
  const LoraShape common_shape = {options.rank, options.alpha};
  std::vector<LoraShape> shapes(linears.size());
  if (options.targets.empty()) {
    shapes.assign(linears.size(), common_shape);
  }
  for (const std::string& target : options.targets) {
    ASSIGN_OR_RETURN(const std::vector<bool> fits,
                     Fit("lora.target_modules", target, linears));
    for (size_t i = 0; i < linears.size(); ++i) {
      if (fits[i]) shapes[i] = common_shape;
    }
  }
  std::vector<bool> decided(linears.size());
  for (const LoraPattern& pattern : options.patterns) {
    ASSIGN_OR_RETURN(const std::vector<bool> fits,
                     Fit("lora.patterns", pattern.modules, linears));
    for (size_t i = 0; i < linears.size(); ++i) {
      if (!fits[i] || decided[i] || shapes[i].rank == 0) continue;
      decided[i] = true;
      if (pattern.rank != 0) shapes[i].rank = pattern.rank;
      if (pattern.alpha != 0) shapes[i].alpha = pattern.alpha;
    }
  }
  for (size_t i = 0; i < linears.size(); ++i) {
    // No adapter goes on experts, or on what is outside the layers.
    if (linears[i].experts > 1 || linears[i].layer < 0) shapes[i] = {};
  }
  for (LoraShape& shape : shapes) {
    if (shape.rank == 0) continue;
    ASSIGN_OR_RETURN(
        shape, MakeLoraShape(shape.rank, shape.alpha, options.use_rslora));
  }
  return shapes;
}

std::string PeftConfigJson(absl::Span<const model::LinearSpec> linears,
                           absl::Span<const LoraShape> shapes,
                           const LoraOptions& options,
                           const std::string& base_model_name) {
  nlohmann::json rank_pattern = nlohmann::json::object();
  nlohmann::json alpha_pattern = nlohmann::json::object();
  for (size_t i = 0; i < linears.size(); ++i) {
    if (shapes[i].rank == 0) continue;
    const std::string& name = linears[i].hf_name;
    if (shapes[i].rank != options.rank) rank_pattern[name] = shapes[i].rank;
    if (shapes[i].alpha != options.alpha) alpha_pattern[name] = shapes[i].alpha;
  }
  const nlohmann::json config = {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path", base_model_name},
      {"r", options.rank},
      {"lora_alpha", options.alpha},
      {"lora_dropout", options.dropout},
      {"target_modules", TargetModules(linears, shapes)},
      {"rank_pattern", rank_pattern},
      {"alpha_pattern", alpha_pattern},
      {"bias", "none"},
      {"use_rslora", options.use_rslora},
      {"use_dora", false},
      {"fan_in_fan_out", false},
      {"init_lora_weights", true},
      {"inference_mode", true},
      {"modules_to_save", nullptr},
  };
  return config.dump(2) + "\n";
}

std::string DescribeLora(const LoraOptions& options) {
  std::string text =
      absl::StrCat("rank=", options.rank, " alpha=", options.alpha,
                   " dropout=", options.dropout,
                   " targets=", absl::StrJoin(options.targets, ","),
                   " rslora=", options.use_rslora,
                   " lora_plus_ratio=", options.lora_plus_ratio);
  for (const LoraPattern& pattern : options.patterns) {
    absl::StrAppend(&text, " ", pattern.modules, ":", pattern.rank, ":",
                    pattern.alpha);
  }
  if (!options.initial.empty()) {
    absl::StrAppend(&text, " initial=", options.initial);
  }
  return text;
}

}  // namespace onegrid::finetuner
