#include "services/finetuner/model_grids.h"

#include "services/common/error_info.h"
#include "services/model/tensor_names.h"

namespace onegrid::finetuner {

absl::StatusOr<ModelGrids> GridsOf(const model::QuantPlan& plan,
                                   const model::GemmaConfig& config) {
  RETURN_IF_ERROR(model::CheckPlan(plan, config));
  ModelGrids grids;
  for (const model::LinearSpec& spec : model::GemmaLinears(config)) {
    ASSIGN_OR_RETURN(const quant::Grid* grid, plan.GridFor(spec.gguf_name));
    grids.linears.push_back(grid);
  }
  ASSIGN_OR_RETURN(grids.embedding, plan.GridFor(model::kGgufEmbedding));
  return grids;
}

}  // namespace onegrid::finetuner
