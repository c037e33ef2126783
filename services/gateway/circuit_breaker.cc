#include "services/gateway/circuit_breaker.h"

#include <utility>

namespace onegrid::gateway {

CircuitBreaker::CircuitBreaker(BreakerOptions options,
                               std::function<absl::Time()> now)
    : options_(options), now_(std::move(now)) {}

CircuitBreaker::State CircuitBreaker::StateAt(absl::Time time) const {
  if (!open_) return State::kClosed;
  return time < open_until_ ? State::kOpen : State::kHalfOpen;
}

std::optional<CircuitBreaker::Ticket> CircuitBreaker::TryBegin() {
  absl::MutexLock lock(&mu_);
  const State state = StateAt(now_());
  if (state == State::kOpen) return std::nullopt;
  if (state == State::kHalfOpen) {
    if (probing_) return std::nullopt;
    probing_ = true;
  }
  return epoch_;
}

void CircuitBreaker::End(Ticket ticket, Outcome outcome) {
  absl::MutexLock lock(&mu_);
  if (ticket != epoch_) return;
  const bool was_probe = std::exchange(probing_, false);
  if (outcome == Outcome::kAbandoned) return;
  if (outcome == Outcome::kSucceeded) {
    failures_ = 0;
    if (open_) ++epoch_;
    open_ = false;
    return;
  }
  ++failures_;
  if (!was_probe && failures_ < options_.failures) return;
  open_ = true;
  open_until_ = now_() + options_.open;
  ++epoch_;
}

CircuitBreaker::State CircuitBreaker::state() const {
  absl::MutexLock lock(&mu_);
  return StateAt(now_());
}

}  // namespace onegrid::gateway
