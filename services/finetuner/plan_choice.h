// From what a user asks for to a quantization plan of one model.
#ifndef SERVICES_FINETUNER_PLAN_CHOICE_H_
#define SERVICES_FINETUNER_PLAN_CHOICE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/finetuner/float_checkpoint.h"
#include "services/finetuner/packing.h"
#include "services/finetuner/plan_search.h"
#include "services/finetuner/sensitivity.h"
#include "services/model/quant_plan.h"

namespace onegrid::finetuner {

// How a plan for a budget is found. Linears may take int2_g64, int4_g32 and
// int8_g32, the embedding int4_g32 and int8_g32.
struct PlanChoiceOptions {
  // Whether the linears will be rounded with error feedback: it decides how
  // much a coarse grid hurts.
  bool feedback = false;
  // Calibration sequences, evenly spread, that each matrix is measured on.
  int64_t measured_sequences = 6;
  // Costs measured before on the same model; empty: measure.
  std::vector<TensorCosts> costs;
};

struct PlanChoice {
  model::QuantPlan plan;
  std::vector<TensorCosts> costs;  // Empty unless the plan is for a budget.
};

// `spec` is the text of a plan (it has a colon), the name of a preset, or
// "auto:BYTES" for the plan with the least summed KL whose matrices take at
// most that many bytes; only the last uses `calibration` and reports progress,
// once for each matrix. The plan fits the model.
// Errors: those of QuantPlan, CheckPlan, ParseAutoPlan, SearchPlan and
// MeasureSensitivity.
absl::StatusOr<PlanChoice> ChoosePlan(
    absl::string_view spec, const FloatCheckpoint& checkpoint,
    absl::Span<const PackedSequence> calibration,
    const PlanChoiceOptions& options, const SensitivityProgress& progress);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_PLAN_CHOICE_H_
