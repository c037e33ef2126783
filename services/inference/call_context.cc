#include "services/inference/call_context.h"

#include "absl/time/clock.h"
#include "services/common/error_info.h"

namespace onegrid::inference {

absl::Status CheckCall(const CallContext& context) {
  if (context.cancelled && context.cancelled()) {
    return common::MakeError(absl::StatusCode::kCancelled, "CANCELLED",
                             "the caller went away");
  }
  if (absl::Now() >= context.deadline) {
    return common::MakeError(absl::StatusCode::kDeadlineExceeded,
                             "DEADLINE_EXCEEDED", "the deadline passed");
  }
  return absl::OkStatus();
}

}  // namespace onegrid::inference
