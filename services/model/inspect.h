#ifndef SERVICES_MODEL_INSPECT_H_
#define SERVICES_MODEL_INSPECT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace onegrid::model {

struct InspectOptions {
  int64_t context_tokens = 8192;   // that a server is to hold, at least 1
  int64_t sequence_tokens = 1024;  // of a tuning run, 8 to 8192
  int64_t rank = 16;               // of its adapter, 1 to 256
  bool json = false;
};

// Says what a model's files hold, as lines of text or as one JSON object, with
// a newline at the end: what SummarizeModel finds, which see, also for the
// errors, and the memory to tune it (TuningBytes). InvalidArgument
// (INVALID_OPTION): an option out of its range.
absl::StatusOr<std::string> InspectModel(const std::string& path,
                                         const InspectOptions& options);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_INSPECT_H_
