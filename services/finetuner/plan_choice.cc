#include "services/finetuner/plan_choice.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "services/common/error_info.h"

namespace onegrid::finetuner {
namespace {

absl::StatusOr<std::vector<TensorCosts>> Measure(
    const FloatCheckpoint& checkpoint,
    absl::Span<const PackedSequence> calibration,
    const PlanChoiceOptions& options, const SensitivityProgress& progress) {
  std::vector<PackedSequence> text;
  const auto all = static_cast<int64_t>(calibration.size());
  const int64_t count = std::min(all, options.measured_sequences);
  for (int64_t i = 0; i < count; ++i) {
    text.push_back(calibration[static_cast<size_t>(i * all / count)]);
  }
  SensitivityOptions grids;
  grids.linear_grids = {&quant::kInt2G64, &quant::kInt4G32, &quant::kInt8G32};
  grids.embedding_grids = {&quant::kInt4G32, &quant::kInt8G32};
  grids.feedback = options.feedback;
  return MeasureSensitivity(checkpoint, grids, calibration, text, progress);
}

absl::StatusOr<model::QuantPlan> ReadPlan(absl::string_view spec,
                                          const model::GemmaConfig& config) {
  if (absl::StrContains(spec, ':')) return model::QuantPlan::Parse(spec);
  return model::QuantPlan::Preset(spec, config);
}

}  // namespace

absl::StatusOr<PlanChoice> ChoosePlan(
    absl::string_view spec, const FloatCheckpoint& checkpoint,
    absl::Span<const PackedSequence> calibration,
    const PlanChoiceOptions& options, const SensitivityProgress& progress) {
  ASSIGN_OR_RETURN(const std::optional<int64_t> budget, ParseAutoPlan(spec));
  if (!budget.has_value()) {
    ASSIGN_OR_RETURN(model::QuantPlan plan, ReadPlan(spec, checkpoint.config));
    RETURN_IF_ERROR(model::CheckPlan(plan, checkpoint.config));
    return PlanChoice{std::move(plan), {}};
  }
  std::vector<TensorCosts> costs = options.costs;
  if (costs.empty()) {
    ASSIGN_OR_RETURN(costs,
                     Measure(checkpoint, calibration, options, progress));
  }
  ASSIGN_OR_RETURN(const std::vector<int> choice, SearchPlan(costs, *budget));
  ASSIGN_OR_RETURN(model::QuantPlan plan, MakePlan(costs, choice));
  RETURN_IF_ERROR(model::CheckPlan(plan, checkpoint.config));
  return PlanChoice{std::move(plan), std::move(costs)};
}

}  // namespace onegrid::finetuner
