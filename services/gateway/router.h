// Answers requests by the local model or an upstream, as the rules say.
#ifndef SERVICES_GATEWAY_ROUTER_H_
#define SERVICES_GATEWAY_ROUTER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/gateway/confidence.h"
#include "services/gateway/http_server.h"
#include "services/gateway/openai_error.h"
#include "services/gateway/route_config.h"
#include "services/gateway/route_facts.h"
#include "services/gateway/route_rules.h"
#include "services/gateway/upstream.h"

namespace onegrid::gateway {

// What the local model says to a request.
struct LocalAnswer {
  HttpResponse response;          // unless there is an error
  std::optional<ApiError> error;  // before anything was answered
  Confidence confidence;          // if it was asked for

  // Another server may do better: the error is not the request's own.
  bool failed() const {
    return error.has_value() &&
           (error->http_status == 429 || error->http_status >= 500);
  }
};

// With `measure` the answer is generated to its end, streamed or not, and its
// confidence is known.
using AskLocal = std::function<LocalAnswer(bool measure)>;

// Who answered a request, and why.
struct RouteRecord {
  std::string target;  // "local" or an upstream's name; empty: not routed
  std::string rule;
  // Of the rules, or what came between: those of UpstreamCall::Start;
  // "confident" and "not_confident"; "local_failed".
  std::string reason;
  std::shared_ptr<UpstreamCall> call;  // of an upstream's answer

  // "TARGET; rule=RULE; reason=REASON", an item of structured headers.
  std::string Text() const;
};

struct RoutedRequest {
  absl::string_view body;
  bool chat = false;
  RouteFacts facts;
  absl::Time deadline;
  HttpCall::AbandonedFn abandoned = [] { return false; };
};

// Thread-safe. Must outlive the responses it gave.
class Router {
 public:
  Router(RouteConfig config, const std::string& local_model,
         RouteMeasures measures, std::function<absl::Time()> now);

  // As ReadRouteFacts.
  std::optional<RouteFacts> Read(const HttpRequest& request, bool chat) const;
  // What clients may ask for: the local model first, then those of the rules.
  const std::vector<std::string>& Models() const { return models_; }
  bool Knows(const std::string& model) const;

  // Never throws. The response has the header x-onegrid-route.
  HttpResponse Answer(const RoutedRequest& request, const AskLocal& ask_local,
                      RouteRecord* record);

  // In Prometheus' text format.
  std::string MetricsText() const;

 private:
  // Empty, and the response is there; else why not.
  std::string AskUpstream(const std::string& name, const RoutedRequest& request,
                          RouteRecord* record, HttpResponse* response);
  HttpResponse Local(const RoutedRequest& request, const AskLocal& ask_local,
                     RouteRecord* record);
  HttpResponse UpstreamFirst(const std::string& name,
                             const RoutedRequest& request,
                             const AskLocal& ask_local, RouteRecord* record);
  HttpResponse Escalate(const RouteRule& rule, const RoutedRequest& request,
                        const AskLocal& ask_local, RouteRecord* record);

  const RouteConfig config_;
  const std::vector<std::string> models_;
  const RouteMeasures measures_;
  std::map<std::string, std::unique_ptr<Upstream>> upstreams_;
  mutable absl::Mutex mu_;
  // By target, rule and reason.
  std::map<std::tuple<std::string, std::string, std::string>, int64_t> routed_
      ABSL_GUARDED_BY(mu_);
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_ROUTER_H_
