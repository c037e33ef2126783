// An OpenAI-compatible server outside: its budget, its breaker, its answers.
#ifndef SERVICES_GATEWAY_UPSTREAM_H_
#define SERVICES_GATEWAY_UPSTREAM_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "services/gateway/circuit_breaker.h"
#include "services/gateway/http_call.h"
#include "services/gateway/route_config.h"
#include "services/gateway/sse_relay.h"
#include "services/gateway/upstream_budget.h"

namespace onegrid::gateway {

struct UpstreamRequest {
  bool chat = false;
  bool stream = false;
  // The client's; only its "model" is changed. Nothing else of the client's
  // goes along, no header above all.
  std::string body;
  // What it may take: estimated for the prompt, and as asked for the answer.
  TokenCount most;
  absl::Time deadline;
  HttpCall::AbandonedFn abandoned = [] { return false; };
};

// Thread-safe. Must outlive its calls.
class Upstream {
 public:
  Upstream(UpstreamConfig config, std::function<absl::Time()> now);

  const std::string& name() const { return config_.name; }
  CircuitBreaker::State breaker_state() const { return breaker_.state(); }
  UpstreamBudget::Totals spent() const { return budget_.totals(); }

 private:
  friend class UpstreamCall;

  const UpstreamConfig config_;
  const std::function<absl::Time()> now_;
  UpstreamBudget budget_;
  CircuitBreaker breaker_;
  HttpConnections connections_;
};

// One request to an upstream. Start, and unless it failed the rest.
// Thread-compatible. Destroying it cancels what is not finished.
class UpstreamCall {
 public:
  UpstreamCall(Upstream& upstream, UpstreamRequest request);
  ~UpstreamCall();
  UpstreamCall(const UpstreamCall&) = delete;
  UpstreamCall& operator=(const UpstreamCall&) = delete;

  // Blocks until there is something to pass on: all of an answer that is not
  // streamed, the first event of one that is. Empty, or why another must
  // answer, for nothing has been passed on:
  //   budget_requests, budget_tokens, budget_cost, breaker_open, no_time  not
  //       asked
  //   upstream_unreachable, upstream_timeout
  //   upstream_rate_limit, upstream_status  429; no 2xx that it answered, other
  //       than 400, 413 and 422, which are the client's to see
  //   upstream_broken  not an answer of this API, too large, or broken off
  //   cancelled  abandoned
  std::string Start();

  int http_status() const { return http_status_; }
  const std::string& content_type() const { return content_type_; }
  bool streams() const { return streams_; }
  // Of an answer that is not streamed.
  const std::string& body() const { return body_; }
  // The next events; false at the end. A stream that breaks off ends with an
  // error as an event and without "[DONE]".
  bool NextPart(std::string* part);

  // The error that ended a stream that had begun; OK until then.
  const absl::Status& status() const { return status_; }
  // As told by the upstream, or estimated.
  TokenCount usage() const;

 private:
  std::string Fail(absl::string_view reason, absl::string_view message);
  std::string FailWith(const absl::Status& status);
  // Whether it was the client's time that ended the call.
  bool IsOutOfTime(const absl::Status& status) const;
  std::string ReadWhole();
  std::string ReadFirstEvent();
  // Ends breaker and budget; once.
  void Settle(CircuitBreaker::Outcome outcome, const TokenCount& spent);

  Upstream& upstream_;
  const UpstreamRequest request_;
  std::unique_ptr<HttpCall> call_;
  std::optional<CircuitBreaker::Ticket> ticket_;  // until it is settled
  int http_status_ = 0;
  std::string content_type_;
  bool streams_ = false;
  std::string body_;
  std::string first_;  // events that wait for NextPart
  bool ended_ = false;
  SseRelay relay_;
  std::optional<TokenCount> usage_;
  absl::Status status_;
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_UPSTREAM_H_
