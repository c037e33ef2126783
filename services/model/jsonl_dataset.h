#ifndef SERVICES_MODEL_JSONL_DATASET_H_
#define SERVICES_MODEL_JSONL_DATASET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace onegrid::model {

// One line of a dataset: {"prompt": "...", "completion": "..."}.
struct Example {
  std::string prompt;
  std::string completion;
  int64_t line;  // 1-based
};

// Reads a whole split of the format prompt_completion (dataset_format.h) with
// strings, for those who need no other. A file without examples gives an empty
// vector.
//
// InvalidArgument (DATASET_SCHEMA_INVALID; metadata path, line, problem): the
// first line that is not UTF-8, not a JSON object, lacks "prompt" or
// "completion", has one that is not a string, or an empty completion. Else the
// errors of MappedFile::Open.
absl::StatusOr<std::vector<Example>> ReadJsonl(const std::string& path);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_JSONL_DATASET_H_
