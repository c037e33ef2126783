// The splits of a dataset by name, and what they are good for.
#ifndef SERVICES_CONTROLLER_DATASET_SPLIT_H_
#define SERVICES_CONTROLLER_DATASET_SPLIT_H_

#include <string>

#include "absl/status/status.h"
#include "proto/onegrid/v1/dataset.pb.h"

namespace onegrid::controller {

// `split` is "train" or "validation"; every other name is the test split.
const v1::DatasetSplit& SplitOf(const v1::Dataset& dataset,
                                const std::string& split);

// FailedPrecondition (NOT_SCORABLE; dataset, split): lines of the split are not
// prompts and completions of text, which is what an evaluation of kind TASK
// compares generated text with.
absl::Status CheckScorable(const v1::Dataset& dataset,
                           const std::string& split);

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_DATASET_SPLIT_H_
