// Which rule holds for a request, and so where it is to go.
#ifndef SERVICES_GATEWAY_ROUTE_RULES_H_
#define SERVICES_GATEWAY_ROUTE_RULES_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "services/gateway/route_config.h"
#include "services/gateway/route_facts.h"

namespace onegrid::gateway {

// What is asked of the local server, and only when a rule has to know.
struct RouteMeasures {
  // Tokens of a text; nothing without an answer.
  std::function<std::optional<int64_t>(const std::string& text)> count_tokens;
  // Requests in the queue; nothing without an answer.
  std::function<std::optional<int64_t>()> queued;
};

struct RouteDecision {
  RouteRule::Action action = RouteRule::Action::kLocal;
  // The rule that holds; nullptr: none, and `name` is the gateway's own.
  const RouteRule* rule = nullptr;
  std::string name;
  std::string reason;  // "rule", "default", "private" or "token_ids"
};

// A private request is local whatever the rules say, and so is one whose prompt
// is token ids. Where the local server does not answer, a prompt is taken for
// one token in four characters, and the queue for endless. `config` must
// outlive the result. Thread-safe as far as `measures` is.
RouteDecision DecideRoute(const RouteConfig& config, const RouteFacts& facts,
                          const RouteMeasures& measures);

// The models that clients may ask for: the local one, and those that rules
// name, each once.
std::vector<std::string> KnownModels(const RouteConfig& config,
                                     const std::string& local_model);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_ROUTE_RULES_H_
