// The OpenAI-compatible API in front of one inference server: routes, keys,
// logs and metrics.
#ifndef SERVICES_GATEWAY_GATEWAY_H_
#define SERVICES_GATEWAY_GATEWAY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "services/gateway/backend.h"
#include "services/gateway/gateway_metrics.h"
#include "services/gateway/http_server.h"
#include "services/gateway/openai_error.h"
#include "services/gateway/openai_request.h"
#include "services/gateway/router.h"

namespace onegrid::gateway {

struct GatewayOptions {
  // The name under which clients ask for the model; its adapters have their
  // own.
  std::string model_name;
  // What clients of /v1 must send as a bearer token; empty lets all in.
  std::string api_key;
  // Most time of one request.
  absl::Duration timeout = absl::Minutes(10);
  absl::Duration health_timeout = absl::Seconds(2);
  // Most time that metrics wait for the backend's share of them. Prometheus
  // waits 10 s unless told otherwise.
  absl::Duration load_timeout = absl::Seconds(1);
  // For ids, and for seeds where the client gives none.
  std::function<uint64_t()> random;
  // Who answers what; nullptr: always the backend. Must outlive the gateway.
  Router* router = nullptr;
};

// Thread-safe. Must outlive the responses it gave.
class Gateway {
 public:
  Gateway(GatewayOptions options, Backend& backend);

  // An answer to any request; all errors have OpenAI's shape. The prompt and
  // the key are never logged.
  HttpResponse Handle(const HttpRequest& request);

 private:
  struct Exchange;

  HttpResponse Route(const HttpRequest& request,
                     const std::shared_ptr<Exchange>& exchange);
  HttpResponse Models(absl::string_view id);
  HttpResponse Health();
  HttpResponse Metrics();
  HttpResponse Complete(const HttpRequest& request, bool chat,
                        const std::shared_ptr<Exchange>& exchange);
  // By the backend. See AskLocal for `measure`.
  LocalAnswer AnswerLocally(const HttpRequest& request, bool chat, bool measure,
                            const std::shared_ptr<Exchange>& exchange);
  LocalAnswer Generate(CompletionRequest parsed, bool measure,
                       const HttpRequest& request,
                       const std::shared_ptr<Exchange>& exchange);
  // The adapter that goes by the name `model`; empty: the model itself.
  // NotFound: neither. Errors of Backend::Adapters.
  absl::StatusOr<std::string> AdapterOf(const std::string& model);
  bool IsAuthorized(const HttpRequest& request) const;
  void Done(const Exchange& exchange, bool sent);

  const GatewayOptions options_;
  const int64_t created_seconds_;
  Backend& backend_;
  GatewayMetrics metrics_;
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_GATEWAY_H_
