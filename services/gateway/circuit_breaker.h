// Keeps requests from an upstream that has failed several times in a row.
#ifndef SERVICES_GATEWAY_CIRCUIT_BREAKER_H_
#define SERVICES_GATEWAY_CIRCUIT_BREAKER_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/gateway/route_config.h"

namespace onegrid::gateway {

// Closed until `failures` in a row; then open for the open time; then half
// open: one request, the probe, is let through, and closes it or opens it
// again. What requests that began before a change of state come to does not
// count. Thread-safe.
class CircuitBreaker {
 public:
  enum class State { kClosed = 0, kHalfOpen = 1, kOpen = 2 };
  enum class Outcome { kSucceeded, kFailed, kAbandoned };
  // Of a request that was let through; to be given back once.
  using Ticket = int64_t;

  CircuitBreaker(BreakerOptions options, std::function<absl::Time()> now);

  // Nothing: the request must not be made.
  std::optional<Ticket> TryBegin();
  // kAbandoned says nothing of the upstream; another probe may be made.
  void End(Ticket ticket, Outcome outcome);

  State state() const;

 private:
  State StateAt(absl::Time time) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const BreakerOptions options_;
  const std::function<absl::Time()> now_;
  mutable absl::Mutex mu_;
  int failures_ ABSL_GUARDED_BY(mu_) = 0;  // in a row
  bool open_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time open_until_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  bool probing_ ABSL_GUARDED_BY(mu_) = false;
  int64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;  // changes of state so far
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_CIRCUIT_BREAKER_H_
