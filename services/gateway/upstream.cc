#include "services/gateway/upstream.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/common/error_info.h"
#include "services/common/json_depth.h"
#include "services/common/log.h"
#include "services/gateway/openai_error.h"
#include "services/gateway/openai_response.h"
#include "services/gateway/route_facts.h"

namespace onegrid::gateway {
namespace {

using Outcome = CircuitBreaker::Outcome;
using Verdict = UpstreamBudget::Verdict;

constexpr int kBytesPerToken = 4;

std::vector<std::string> Headers(const ApiKey& key) {
  std::vector<std::string> headers = {"Content-Type: application/json",
                                      "User-Agent: onegrid"};
  if (!key.empty()) {
    headers.push_back(absl::StrCat("Authorization: Bearer ", key.Reveal()));
  }
  return headers;
}

constexpr size_t kMaxBytesBeforeEvent = 64 << 10;

bool IsObject(const std::string& text) {
  if (common::NestsDeeperThan(text, common::kJsonDepthMax)) return false;
  return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false)
      .is_object();
}

// Whether an answer is about the client's request rather than the upstream's
// state or the gateway's key for it.
bool IsForTheClient(int http_status) {
  return http_status / 100 == 2 || http_status == 400 || http_status == 413 ||
         http_status == 422;
}

const char* ReasonOf(Verdict verdict) {
  switch (verdict) {
    case Verdict::kRequests:
      return "budget_requests";
    case Verdict::kTokens:
      return "budget_tokens";
    default:
      return "budget_cost";
  }
}

const char* ReasonOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return "upstream_unreachable";
    case absl::StatusCode::kDeadlineExceeded:
      return "upstream_timeout";
    case absl::StatusCode::kCancelled:
      return "cancelled";
    default:
      return "upstream_broken";
  }
}

}  // namespace

Upstream::Upstream(UpstreamConfig config, std::function<absl::Time()> now)
    : config_(std::move(config)),
      now_(std::move(now)),
      budget_(config_.budget, now_),
      breaker_(config_.breaker, now_) {}

UpstreamCall::UpstreamCall(Upstream& upstream, UpstreamRequest request)
    : upstream_(upstream), request_(std::move(request)) {}

UpstreamCall::~UpstreamCall() { Settle(Outcome::kAbandoned, usage()); }

TokenCount UpstreamCall::usage() const {
  if (usage_.has_value()) return *usage_;
  if (relay_.usage().has_value()) return *relay_.usage();
  return {
      request_.most.prompt,
      relay_.events() + static_cast<int64_t>(body_.size()) / kBytesPerToken};
}

void UpstreamCall::Settle(Outcome outcome, const TokenCount& spent) {
  if (!ticket_.has_value()) return;
  upstream_.breaker_.End(*ticket_, outcome);
  upstream_.budget_.End(request_.most, spent);
  usage_ = spent;
  ticket_.reset();
}

std::string UpstreamCall::Fail(absl::string_view reason,
                               absl::string_view message) {
  common::LogWarning("upstream_failed", {{"upstream", upstream_.name()},
                                         {"reason", reason},
                                         {"status", http_status_},
                                         {"message", message}});
  call_.reset();
  return std::string(reason);
}

std::string UpstreamCall::FailWith(const absl::Status& status) {
  if (absl::IsCancelled(status)) {
    Settle(Outcome::kAbandoned, usage());
    call_.reset();
    return "cancelled";
  }
  // A request that was never received costs nothing, and a client that gave the
  // upstream too little time says nothing about it.
  Settle(IsOutOfTime(status) ? Outcome::kAbandoned : Outcome::kFailed,
         absl::IsUnavailable(status) ? TokenCount{} : usage());
  return Fail(ReasonOf(status), status.message());
}

bool UpstreamCall::IsOutOfTime(const absl::Status& status) const {
  return absl::IsDeadlineExceeded(status) && absl::Now() >= request_.deadline;
}

std::string UpstreamCall::Start() {
  const UpstreamConfig& config = upstream_.config_;
  if (absl::Now() >= request_.deadline) return "no_time";
  const Verdict verdict = upstream_.budget_.TryBegin(request_.most);
  if (verdict != Verdict::kGranted) return ReasonOf(verdict);
  ticket_ = upstream_.breaker_.TryBegin();
  if (!ticket_.has_value()) {
    upstream_.budget_.Cancel(request_.most);
    return "breaker_open";
  }
  HttpCallOptions options;
  options.url = absl::StrCat(
      config.base_url, request_.chat ? "/chat/completions" : "/completions");
  options.headers = Headers(config.api_key);
  options.body = WithModel(request_.body, config.model);
  options.ca_file = config.ca_file;
  options.connect_timeout = config.connect_timeout;
  options.deadline =
      std::min(request_.deadline, absl::Now() + config.request_timeout);
  options.bytes_max = config.response_bytes_max;
  call_ =
      std::make_unique<HttpCall>(std::move(options), upstream_.connections_);
  const absl::Status status = call_->Start(request_.abandoned);
  if (!status.ok()) return FailWith(status);
  http_status_ = call_->http_status();
  if (!IsForTheClient(http_status_)) {
    // Some say 403 to what a prompt holds.
    Settle(http_status_ == 403 ? Outcome::kAbandoned : Outcome::kFailed, {});
    return Fail(http_status_ == 429 ? "upstream_rate_limit" : "upstream_status",
                "no answer to pass on");
  }
  streams_ =
      request_.stream && http_status_ / 100 == 2 &&
      absl::StartsWithIgnoreCase(call_->content_type(), "text/event-stream");
  return streams_ ? ReadFirstEvent() : ReadWhole();
}

std::string UpstreamCall::ReadWhole() {
  std::string bytes;
  while (call_->Read(&bytes, request_.abandoned)) body_ += bytes;
  if (!call_->status().ok()) return FailWith(call_->status());
  if (!IsObject(body_)) {
    return FailWith(absl::AbortedError("the answer is not a JSON object"));
  }
  content_type_ = "application/json";
  const bool succeeded = http_status_ / 100 == 2;
  const TokenCount spent =
      succeeded ? UsageOf(body_).value_or(usage()) : TokenCount{};
  Settle(Outcome::kSucceeded, spent);
  ended_ = true;
  call_.reset();
  return "";
}

std::string UpstreamCall::ReadFirstEvent() {
  content_type_ = "text/event-stream; charset=utf-8";
  std::string bytes;
  // Comments keep a connection alive and are no answer yet.
  while (relay_.events() == 0 && !relay_.done() && !relay_.too_large() &&
         first_.size() < kMaxBytesBeforeEvent) {
    if (!call_->Read(&bytes, request_.abandoned)) break;
    first_ += relay_.Append(bytes);
  }
  if (relay_.events() > 0 || relay_.done()) return "";
  first_.clear();
  const absl::Status& status = call_->status();
  return FailWith(status.ok() ? absl::AbortedError("a stream without an event")
                              : status);
}

bool UpstreamCall::NextPart(std::string* part) {
  if (!first_.empty()) {
    *part = std::exchange(first_, "");
    return true;
  }
  if (ended_) return false;
  std::string bytes;
  // After "[DONE]" nothing is waited for.
  while (!relay_.done() && !relay_.too_large() &&
         call_->Read(&bytes, request_.abandoned)) {
    *part = relay_.Append(bytes);
    if (!part->empty()) return true;
  }
  ended_ = true;
  if (relay_.done()) {
    Settle(Outcome::kSucceeded, usage());
    call_.reset();
    return false;
  }
  const absl::Status status = call_->status();
  const bool cancelled = absl::IsCancelled(status);
  // Once a stream has begun, its reader may be what takes the time.
  const bool slow = absl::IsDeadlineExceeded(status);
  Settle(cancelled || slow ? Outcome::kAbandoned : Outcome::kFailed, usage());
  if (!cancelled) {
    Fail(ReasonOf(status.ok() ? absl::AbortedError("") : status),
         "a stream broke off");
  }
  call_.reset();
  status_ =
      cancelled
          ? status
          : common::MakeError(
                absl::StatusCode::kUnavailable, "UPSTREAM_BROKEN",
                absl::StrCat("the upstream ", upstream_.name(), " broke off"));
  *part = SseEvent(ErrorJson(FromStatus(status_)));
  return true;
}

}  // namespace onegrid::gateway
