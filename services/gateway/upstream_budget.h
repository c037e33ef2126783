// What may still be spent at one upstream.
#ifndef SERVICES_GATEWAY_UPSTREAM_BUDGET_H_
#define SERVICES_GATEWAY_UPSTREAM_BUDGET_H_

#include <cstdint>
#include <deque>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/gateway/route_config.h"

namespace onegrid::gateway {

struct TokenCount {
  int64_t prompt = 0;
  int64_t completion = 0;
};

// Requests in any 60 s, and tokens and their cost in a day of UTC. What a
// request may take is set aside while it runs, so that many at once do not
// spend more than there is; a request whose answer is longer than was set aside
// may go over a limit by that. Kept in memory only. Thread-safe.
class UpstreamBudget {
 public:
  enum class Verdict { kGranted, kRequests, kTokens, kCost };

  UpstreamBudget(BudgetLimits limits, std::function<absl::Time()> now);

  // kGranted: `most` is set aside, and one of End and Cancel must follow. Else
  // the limit that is in the way.
  Verdict TryBegin(const TokenCount& most);
  // The request took `spent`.
  void End(const TokenCount& most, const TokenCount& spent);
  // The request was not made.
  void Cancel(const TokenCount& most);

  struct Totals {
    TokenCount tokens;  // since the start
    double cost = 0;
    int64_t tokens_today = 0;
    double cost_today = 0;
  };
  Totals totals() const;

 private:
  double Cost(const TokenCount& tokens) const;
  // Forgets what was spent before this day and this minute.
  void Advance() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const BudgetLimits limits_;
  const std::function<absl::Time()> now_;
  mutable absl::Mutex mu_;
  mutable std::deque<absl::Time> begun_ ABSL_GUARDED_BY(mu_);  // last minute
  mutable int64_t day_ ABSL_GUARDED_BY(mu_) = 0;               // since 1970
  mutable TokenCount today_ ABSL_GUARDED_BY(mu_);
  TokenCount reserved_ ABSL_GUARDED_BY(mu_);
  TokenCount total_ ABSL_GUARDED_BY(mu_);
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_UPSTREAM_BUDGET_H_
