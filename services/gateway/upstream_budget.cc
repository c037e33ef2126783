#include "services/gateway/upstream_budget.h"

#include <utility>

namespace onegrid::gateway {
namespace {

constexpr int64_t kDaySeconds = 24 * 60 * 60;

int64_t Sum(const TokenCount& tokens) {
  return tokens.prompt + tokens.completion;
}

TokenCount Plus(const TokenCount& a, const TokenCount& b) {
  return {a.prompt + b.prompt, a.completion + b.completion};
}

TokenCount Minus(const TokenCount& a, const TokenCount& b) {
  return {a.prompt - b.prompt, a.completion - b.completion};
}

}  // namespace

UpstreamBudget::UpstreamBudget(BudgetLimits limits,
                               std::function<absl::Time()> now)
    : limits_(limits), now_(std::move(now)) {}

double UpstreamBudget::Cost(const TokenCount& tokens) const {
  return (static_cast<double>(tokens.prompt) * limits_.prompt_cost_per_million +
          static_cast<double>(tokens.completion) *
              limits_.completion_cost_per_million) /
         1e6;
}

void UpstreamBudget::Advance() const {
  const absl::Time now = now_();
  const int64_t day = absl::ToUnixSeconds(now) / kDaySeconds;
  if (day > day_) {
    day_ = day;
    today_ = {};
  }
  while (!begun_.empty() && begun_.front() <= now - absl::Minutes(1)) {
    begun_.pop_front();
  }
}

UpstreamBudget::Verdict UpstreamBudget::TryBegin(const TokenCount& most) {
  absl::MutexLock lock(&mu_);
  Advance();
  if (limits_.requests_per_minute > 0 &&
      static_cast<int64_t>(begun_.size()) >= limits_.requests_per_minute) {
    return Verdict::kRequests;
  }
  const TokenCount after = Plus(Plus(today_, reserved_), most);
  if (limits_.tokens_per_day > 0 && Sum(after) > limits_.tokens_per_day) {
    return Verdict::kTokens;
  }
  if (limits_.cost_per_day > 0 && Cost(after) > limits_.cost_per_day) {
    return Verdict::kCost;
  }
  reserved_ = Plus(reserved_, most);
  if (limits_.requests_per_minute > 0) begun_.push_back(now_());
  return Verdict::kGranted;
}

void UpstreamBudget::End(const TokenCount& most, const TokenCount& spent) {
  absl::MutexLock lock(&mu_);
  Advance();
  reserved_ = Minus(reserved_, most);
  today_ = Plus(today_, spent);
  total_ = Plus(total_, spent);
}

void UpstreamBudget::Cancel(const TokenCount& most) {
  absl::MutexLock lock(&mu_);
  reserved_ = Minus(reserved_, most);
  if (!begun_.empty()) begun_.pop_back();
}

UpstreamBudget::Totals UpstreamBudget::totals() const {
  absl::MutexLock lock(&mu_);
  Advance();
  return {total_, Cost(total_), Sum(today_), Cost(today_)};
}

}  // namespace onegrid::gateway
