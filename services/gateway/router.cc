#include "services/gateway/router.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/gateway/error_response.h"

namespace onegrid::gateway {
namespace {

constexpr char kHeader[] = "x-onegrid-route";
constexpr int64_t kCharactersPerToken = 4;

TokenCount MostOf(const RouteFacts& facts) {
  TokenCount most;
  most.prompt =
      (facts.characters + kCharactersPerToken - 1) / kCharactersPerToken;
  // A number that no server takes is not worth an overflow.
  constexpr int64_t kSane = 1'000'000'000;
  if (facts.max_tokens > 0 && facts.max_tokens < kSane) {
    most.completion = facts.max_tokens * std::clamp<int64_t>(facts.n, 1, 1000);
  }
  return most;
}

HttpResponse Respond(LocalAnswer answer) {
  return answer.error.has_value() ? ErrorResponse(*answer.error)
                                  : std::move(answer.response);
}

HttpResponse Cancelled() {
  ApiError error;
  error.http_status = 499;
  error.code = "cancelled";
  error.message = "the client went away or the gateway is shutting down";
  return ErrorResponse(error);
}

bool MayLeave(const RouteFacts& facts) {
  return !facts.is_private && !facts.has_token_ids;
}

void AppendHead(absl::string_view name, absl::string_view type,
                absl::string_view help, std::string* out) {
  absl::StrAppend(out, "# HELP ", name, " ", help, "\n# TYPE ", name, " ", type,
                  "\n");
}

}  // namespace

std::string RouteRecord::Text() const {
  return absl::StrCat(target, "; rule=", rule, "; reason=", reason);
}

Router::Router(RouteConfig config, const std::string& local_model,
               RouteMeasures measures, std::function<absl::Time()> now)
    : config_(std::move(config)),
      models_(KnownModels(config_, local_model)),
      measures_(std::move(measures)) {
  for (const UpstreamConfig& upstream : config_.upstreams) {
    upstreams_[upstream.name] = std::make_unique<Upstream>(upstream, now);
  }
}

std::optional<RouteFacts> Router::Read(const HttpRequest& request,
                                       bool chat) const {
  return ReadRouteFacts(request.body, chat, request.privacy, request.task,
                        config_.private_by_default);
}

bool Router::Knows(const std::string& model) const {
  return std::find(models_.begin(), models_.end(), model) != models_.end();
}

std::string Router::AskUpstream(const std::string& name,
                                const RoutedRequest& request,
                                RouteRecord* record, HttpResponse* response) {
  UpstreamRequest asked;
  asked.chat = request.chat;
  asked.stream = request.facts.stream;
  asked.body = std::string(request.body);
  asked.most = MostOf(request.facts);
  asked.deadline = request.deadline;
  asked.abandoned = request.abandoned;
  auto call =
      std::make_shared<UpstreamCall>(*upstreams_.at(name), std::move(asked));
  const std::string failure = call->Start();
  if (!failure.empty()) return failure;
  record->target = name;
  record->call = call;
  response->status = call->http_status();
  response->content_type = call->content_type();
  if (call->streams()) {
    response->headers = {{"Cache-Control", "no-cache"},
                         {"X-Accel-Buffering", "no"}};
    response->next_part = [call](std::string* part) {
      return call->NextPart(part);
    };
  } else {
    response->body = call->body();
  }
  return "";
}

HttpResponse Router::Local(const RoutedRequest& request,
                           const AskLocal& ask_local, RouteRecord* record) {
  LocalAnswer answer = ask_local(/*measure=*/false);
  if (!answer.failed()) return Respond(std::move(answer));
  if (request.facts.is_private) {
    absl::StrAppend(&answer.error->message,
                    "; the request is private and was sent nowhere else");
    return Respond(std::move(answer));
  }
  if (config_.on_local_failure.empty() || !MayLeave(request.facts)) {
    return Respond(std::move(answer));
  }
  HttpResponse response;
  const std::string failure =
      AskUpstream(config_.on_local_failure, request, record, &response);
  record->reason = failure.empty() ? "local_failed" : failure;
  return failure.empty() ? response : Respond(std::move(answer));
}

HttpResponse Router::UpstreamFirst(const std::string& name,
                                   const RoutedRequest& request,
                                   const AskLocal& ask_local,
                                   RouteRecord* record) {
  HttpResponse response;
  const std::string failure = AskUpstream(name, request, record, &response);
  if (failure.empty()) return response;
  record->reason = failure;
  if (failure == "cancelled") return Cancelled();
  LocalAnswer answer = ask_local(/*measure=*/false);
  if (answer.error.has_value()) {
    ApiError& error = *answer.error;
    error.message =
        absl::StrCat("upstream ", name, " gave no answer (", failure,
                     "), and neither does the local model: ", error.message);
    // What only the local model cannot do is not the client's mistake.
    if (!answer.failed()) {
      error.http_status = 503;
      error.type = "server_error";
      error.code = "upstream_failed";
      error.param.clear();
    }
  }
  return Respond(std::move(answer));
}

HttpResponse Router::Escalate(const RouteRule& rule,
                              const RoutedRequest& request,
                              const AskLocal& ask_local, RouteRecord* record) {
  LocalAnswer answer = ask_local(/*measure=*/true);
  if (answer.error.has_value() && !answer.failed()) {
    return Respond(std::move(answer));
  }
  const double confidence = rule.measure == RouteRule::Measure::kMinLogprob
                                ? answer.confidence.min()
                                : answer.confidence.mean();
  if (!answer.failed() && confidence >= rule.below) {
    record->reason = "confident";
    return Respond(std::move(answer));
  }
  HttpResponse response;
  const std::string failure =
      AskUpstream(rule.upstream, request, record, &response);
  if (failure.empty()) {
    record->reason = answer.failed() ? "local_failed" : "not_confident";
    return response;
  }
  record->reason = failure;
  return failure == "cancelled" ? Cancelled() : Respond(std::move(answer));
}

HttpResponse Router::Answer(const RoutedRequest& request,
                            const AskLocal& ask_local, RouteRecord* record) {
  const RouteDecision decision = DecideRoute(config_, request.facts, measures_);
  record->target = std::string(kLocalTarget);
  record->rule = decision.name;
  record->reason = decision.reason;
  HttpResponse response;
  switch (decision.action) {
    case RouteRule::Action::kLocal:
      response = Local(request, ask_local, record);
      break;
    case RouteRule::Action::kUpstream:
      response =
          UpstreamFirst(decision.rule->upstream, request, ask_local, record);
      break;
    case RouteRule::Action::kEscalate:
      response = Escalate(*decision.rule, request, ask_local, record);
      break;
  }
  response.headers.emplace_back(kHeader, record->Text());
  absl::MutexLock lock(&mu_);
  ++routed_[{record->target, record->rule, record->reason}];
  return response;
}

std::string Router::MetricsText() const {
  std::string out;
  AppendHead("onegrid_route_total", "counter",
             "Requests by who answered, which rule held, and why.", &out);
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [key, count] : routed_) {
      const auto& [target, rule, reason] = key;
      absl::StrAppend(&out, "onegrid_route_total{target=\"", target,
                      "\",rule=\"", rule, "\",reason=\"", reason, "\"} ", count,
                      "\n");
    }
  }
  // A family's samples have to stand together.
  const auto append = [&](absl::string_view name, absl::string_view type,
                          absl::string_view help, const auto& value_of) {
    AppendHead(name, type, help, &out);
    for (const auto& [upstream, state] : upstreams_) {
      absl::StrAppend(&out, name, "{upstream=\"", upstream, "\"} ",
                      absl::StrFormat("%.15g", value_of(*state)), "\n");
    }
  };
  append("onegrid_upstream_breaker_state", "gauge",
         "0 closed, 1 half open, 2 open.", [](const Upstream& upstream) {
           return static_cast<double>(upstream.breaker_state());
         });
  append("onegrid_upstream_prompt_tokens_total", "counter",
         "Tokens of prompts, as the upstream tells or estimated.",
         [](const Upstream& upstream) {
           return static_cast<double>(upstream.spent().tokens.prompt);
         });
  append("onegrid_upstream_completion_tokens_total", "counter",
         "Tokens of answers, as the upstream tells or estimated.",
         [](const Upstream& upstream) {
           return static_cast<double>(upstream.spent().tokens.completion);
         });
  append("onegrid_upstream_cost_total", "counter",
         "Cost of these tokens at the prices of the routes.",
         [](const Upstream& upstream) { return upstream.spent().cost; });
  append("onegrid_upstream_tokens_today", "gauge",
         "Tokens of this day of UTC, which tokens_per_day limits.",
         [](const Upstream& upstream) {
           return static_cast<double>(upstream.spent().tokens_today);
         });
  append("onegrid_upstream_cost_today", "gauge",
         "Cost of this day of UTC, which cost_per_day limits.",
         [](const Upstream& upstream) { return upstream.spent().cost_today; });
  return out;
}

}  // namespace onegrid::gateway
