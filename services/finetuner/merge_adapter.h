// Adds a trained adapter to float weights: what a user does who merges first
// and quantizes afterwards.
#ifndef SERVICES_FINETUNER_MERGE_ADAPTER_H_
#define SERVICES_FINETUNER_MERGE_ADAPTER_H_

#include <string>

#include "absl/status/status.h"
#include "services/finetuner/float_checkpoint.h"

namespace onegrid::finetuner {

// W += scale * B A for every linear that the PEFT adapter in `folder`
// (adapter.safetensors or adapter_model.safetensors, and adapter_config.json)
// has; scale is lora_alpha / rank, or / sqrt(rank) with use_rslora, with
// alpha_pattern's alpha where it names the module.
// DataLoss (CORRUPT_FILE): half a pair, shapes that do not fit. InvalidArgument
// (UNSUPPORTED_ADAPTER): DoRA, or a file without any of the model's linears.
absl::Status MergeAdapter(const std::string& folder,
                          FloatCheckpoint* checkpoint);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_MERGE_ADAPTER_H_
