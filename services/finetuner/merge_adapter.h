// Adds a trained adapter to float weights: what a user does who merges first
// and quantizes afterwards.
#ifndef SERVICES_FINETUNER_MERGE_ADAPTER_H_
#define SERVICES_FINETUNER_MERGE_ADAPTER_H_

#include <string>

#include "absl/status/status.h"
#include "services/finetuner/float_checkpoint.h"

namespace onegrid::finetuner {

// W += scale * B A for every linear that the adapter at `path`, a PEFT folder
// or a GGUF, has. Errors of common::FindAdapterFiles and model::Adapter::Open;
// the weights are then as they were.
absl::Status MergeAdapter(const std::string& path, FloatCheckpoint* checkpoint);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_MERGE_ADAPTER_H_
