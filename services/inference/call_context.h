// What the scheduler needs to know about the caller of a request.
#ifndef SERVICES_INFERENCE_CALL_CONTEXT_H_
#define SERVICES_INFERENCE_CALL_CONTEXT_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace onegrid::inference {

struct CallContext {
  // True once nobody waits for the answer. Called from any thread, often;
  // valid until the call has ended. Empty: never.
  std::function<bool()> cancelled;
  absl::Time deadline = absl::InfiniteFuture();
};

// Cancelled, DeadlineExceeded or OK. Thread-safe if context.cancelled is.
absl::Status CheckCall(const CallContext& context);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_CALL_CONTEXT_H_
