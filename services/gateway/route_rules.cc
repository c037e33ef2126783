#include "services/gateway/route_rules.h"

#include <algorithm>
#include <limits>

namespace onegrid::gateway {
namespace {

constexpr int64_t kCharactersPerToken = 4;

bool Contains(const std::vector<std::string>& texts, const std::string& text) {
  return std::find(texts.begin(), texts.end(), text) != texts.end();
}

// Asks each measure once at most.
class Facts {
 public:
  Facts(const RouteFacts& facts, const RouteMeasures& measures)
      : facts_(facts), measures_(measures) {}

  bool Hold(const RouteConditions& when) {
    if (!when.models.empty() && !Contains(when.models, facts_.model)) {
      return false;
    }
    if (!when.tasks.empty() && !Contains(when.tasks, facts_.task)) {
      return false;
    }
    if (!when.prompt_characters.Holds(facts_.characters) ||
        !when.max_tokens.Holds(facts_.max_tokens) ||
        when.has_tools.value_or(facts_.has_tools) != facts_.has_tools ||
        when.has_response_format.value_or(facts_.has_response_format) !=
            facts_.has_response_format) {
      return false;
    }
    // The dear ones last.
    if (when.prompt_tokens.given() && !when.prompt_tokens.Holds(Tokens())) {
      return false;
    }
    return when.local_queued_min == 0 || Queued() >= when.local_queued_min;
  }

 private:
  static constexpr int64_t kUnknown = -1;

  int64_t Tokens() {
    if (tokens_ == kUnknown) {
      tokens_ = measures_.count_tokens(facts_.text)
                    .value_or((facts_.characters + kCharactersPerToken - 1) /
                              kCharactersPerToken);
    }
    return tokens_;
  }
  int64_t Queued() {
    if (queued_ == kUnknown) {
      queued_ =
          measures_.queued().value_or(std::numeric_limits<int64_t>::max());
    }
    return queued_;
  }

  const RouteFacts& facts_;
  const RouteMeasures& measures_;
  int64_t tokens_ = kUnknown;
  int64_t queued_ = kUnknown;
};

RouteDecision Local(absl::string_view name, absl::string_view reason) {
  RouteDecision decision;
  decision.name = std::string(name);
  decision.reason = std::string(reason);
  return decision;
}

}  // namespace

RouteDecision DecideRoute(const RouteConfig& config, const RouteFacts& facts,
                          const RouteMeasures& measures) {
  if (facts.is_private) return Local(kPrivateRule, "private");
  if (facts.has_token_ids) return Local(kDefaultRule, "token_ids");
  Facts known(facts, measures);
  for (const RouteRule& rule : config.rules) {
    if (!known.Hold(rule.when)) continue;
    return {rule.action, &rule, rule.name, "rule"};
  }
  return Local(kDefaultRule, "default");
}

std::vector<std::string> KnownModels(const RouteConfig& config,
                                     const std::string& local_model) {
  std::vector<std::string> models = {local_model};
  for (const RouteRule& rule : config.rules) {
    for (const std::string& model : rule.when.models) {
      if (!Contains(models, model)) models.push_back(model);
    }
  }
  return models;
}

}  // namespace onegrid::gateway
