// The best quantization plan under a byte budget. Free of LibTorch.
#ifndef SERVICES_FINETUNER_PLAN_SEARCH_H_
#define SERVICES_FINETUNER_PLAN_SEARCH_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"
#include "services/model/quant_plan.h"

namespace onegrid::finetuner {

// One grid that a tensor may be put on.
struct GridCost {
  const quant::Grid* grid = nullptr;
  int64_t bytes = 0;
  double kl = 0;  // Nats per token with only this tensor on the grid.
};

// One tensor and its grids, of which it has at least one.
struct TensorCosts {
  std::string name;  // GGUF name.
  std::vector<GridCost> grids;
};

// For each tensor the position of its grid in the plan with the least summed KL
// that takes at most `budget_bytes`; of equal sums the smaller plan.
// Exact while all sizes are multiples of a common unit of which the budget has
// at most 2^20; beyond that sizes are rounded up to a coarser unit: the plan
// still fits, and the sum is that of the best plan for a budget smaller by at
// most `tensors` units.
// InvalidArgument (BUDGET_TOO_SMALL; budget_bytes, least_bytes): not even the
// smallest grids fit. InvalidArgument (BUDGET_TOO_LARGE; budget_bytes,
// most_bytes): the largest grids take less, so there is nothing to choose.
absl::StatusOr<std::vector<int>> SearchPlan(
    absl::Span<const TensorCosts> tensors, int64_t budget_bytes);

// The plan that gives tensor i its grid plan[i], one rule for each tensor, with
// the KL of each of its grids in a comment.
absl::StatusOr<model::QuantPlan> MakePlan(absl::Span<const TensorCosts> tensors,
                                          absl::Span<const int> plan);

// Measured costs as a JSON file, to choose by them again: [{"name", "grids":
// [{"grid", "bytes", "kl"}]}].
std::string CostsToJson(absl::Span<const TensorCosts> tensors);
// InvalidArgument (INVALID_COSTS): not such a file, or a tensor without grids.
absl::StatusOr<std::vector<TensorCosts>> CostsFromJson(absl::string_view text);

// The bytes of "auto:BYTES"; nothing for other texts. InvalidArgument
// (INVALID_QUANT_PLAN): "auto:" and not a positive number.
absl::StatusOr<std::optional<int64_t>> ParseAutoPlan(absl::string_view text);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_PLAN_SEARCH_H_
