// The grid of each matrix of a model: a quantization plan, resolved.
#ifndef SERVICES_FINETUNER_MODEL_GRIDS_H_
#define SERVICES_FINETUNER_MODEL_GRIDS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/quant/grid.h"
#include "services/model/gemma_config.h"
#include "services/model/quant_plan.h"

namespace onegrid::finetuner {

struct ModelGrids {
  std::vector<const quant::Grid*> linears;  // Parallel to GemmaLinears.
  const quant::Grid* embedding = nullptr;
};

// Errors of model::CheckPlan.
absl::StatusOr<ModelGrids> GridsOf(const model::QuantPlan& plan,
                                   const model::GemmaConfig& config);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_MODEL_GRIDS_H_
