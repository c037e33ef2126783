// Checks a tuning job's settings and fills in the defaults.
#ifndef SERVICES_CONTROLLER_TUNING_SPEC_H_
#define SERVICES_CONTROLLER_TUNING_SPEC_H_

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/tuning.pb.h"

namespace onegrid::controller {

// The user's fields of `job` with every default named in tuning.proto put in;
// output-only fields are dropped. InvalidArgument (INVALID_FIELD; metadata:
// field, value, range). A pure function.
absl::StatusOr<v1::TuningJob> CompleteTuningJob(const v1::TuningJob& job);

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_TUNING_SPEC_H_
