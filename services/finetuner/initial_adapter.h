// The adapter that a run begins with, trained elsewhere.
#ifndef SERVICES_FINETUNER_INITIAL_ADAPTER_H_
#define SERVICES_FINETUNER_INITIAL_ADAPTER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/finetuner/lora_adapter.h"
#include "services/finetuner/lora_plan.h"
#include "services/model/adapter.h"
#include "services/model/tensor_names.h"

namespace onegrid::finetuner {

// Reads the adapter for a base of these linears. Its ranks, alphas, targets and
// use_rslora count; what `options` asks for beside (a rank or alpha other than
// 0, targets, use_rslora) must be the same. A and B are the file's, bit for bit
// where it has F32.
//
// Errors of model::Adapter::Open. InvalidArgument: INVALID_HYPERPARAMETER
// (field): the options ask for another adapter, or it is beyond the bounds of
// PlanLora; UNSUPPORTED_ADAPTER: a linear outside of the layers, which is not
// trained.
absl::StatusOr<LoraAdapter> LoadInitialAdapter(
    const common::AdapterFiles& files, const std::string& architecture,
    const std::vector<model::LinearSpec>& linears, LoraOptions options);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_INITIAL_ADAPTER_H_
