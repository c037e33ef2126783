// The file that says which requests go to which model, read and checked.
#ifndef SERVICES_GATEWAY_ROUTE_CONFIG_H_
#define SERVICES_GATEWAY_ROUTE_CONFIG_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace onegrid::gateway {

// A secret: nothing writes it but who asks for it by name.
class ApiKey {
 public:
  ApiKey() = default;
  explicit ApiKey(std::string key) : key_(std::move(key)) {}
  bool empty() const { return key_.empty(); }
  // For the Authorization header of a request to its upstream, and no log.
  const std::string& Reveal() const { return key_; }

 private:
  std::string key_;
};

// 0 is no limit. A day is one of UTC; costs are in any one currency.
struct BudgetLimits {
  int64_t requests_per_minute = 0;
  int64_t tokens_per_day = 0;
  double cost_per_day = 0;
  double prompt_cost_per_million = 0;
  double completion_cost_per_million = 0;
};

struct BreakerOptions {
  // Failures one after the other that open it.
  int failures = 5;
  // Then no request is tried for so long, and one alone after that.
  absl::Duration open = absl::Seconds(30);
};

struct UpstreamConfig {
  std::string name;
  // http or https, without user, query and fragment, and without "/" at the
  // end; "/chat/completions" or "/completions" is added.
  std::string base_url;
  // The model's name there.
  std::string model;
  ApiKey api_key;
  // Instead of the system's authorities; empty is those.
  std::string ca_file;
  absl::Duration connect_timeout = absl::Seconds(2);
  absl::Duration request_timeout = absl::Minutes(1);
  size_t response_bytes_max = 16 << 20;
  BudgetLimits budget;
  BreakerOptions breaker;
};

// All that are given must hold.
struct RouteConditions {
  struct Range {
    int64_t min = 0;
    int64_t max = std::numeric_limits<int64_t>::max();
    bool Holds(int64_t value) const { return value >= min && value <= max; }
    bool given() const { return min > 0 || max < Range().max; }
  };
  std::vector<std::string> models;  // one of these
  std::vector<std::string> tasks;   // one of these
  Range prompt_characters;
  Range prompt_tokens;
  Range max_tokens;  // as asked for
  std::optional<bool> has_tools;
  std::optional<bool> has_response_format;
  // Requests in the local server's queue at least.
  int64_t local_queued_min = 0;
};

struct RouteRule {
  enum class Action { kLocal, kUpstream, kEscalate };
  enum class Measure { kMeanLogprob, kMinLogprob };

  std::string name;
  RouteConditions when;
  Action action = Action::kLocal;
  std::string upstream;  // empty if local
  // Of kEscalate: the local answer goes out unless this is below `below`.
  Measure measure = Measure::kMeanLogprob;
  double below = 0;
};

// Names that the gateway gives itself in the place of a rule's.
inline constexpr absl::string_view kDefaultRule = "default";
inline constexpr absl::string_view kPrivateRule = "private";
inline constexpr absl::string_view kLocalTarget = "local";

struct RouteConfig {
  // Only requests marked public may leave.
  bool private_by_default = true;
  std::vector<UpstreamConfig> upstreams;
  // The first one that holds counts; local without any.
  std::vector<RouteRule> rules;
  // Who answers what may leave and the local server could not; empty: nobody.
  std::string on_local_failure;
};

// Reads a file of YAML, and so of JSON, and the key files that it names;
// relative paths start at its folder. INVALID_ARGUMENT (INVALID_ROUTES): not
// YAML, unknown keys, values missing or of wrong types, names that do not
// exist, rules that no request reaches; the message has line and key, and never
// a value. Errors of ReadFile.
absl::StatusOr<RouteConfig> ReadRouteConfig(const std::string& path);
// The same of a text; `folder` is where relative paths start.
absl::StatusOr<RouteConfig> ParseRouteConfig(absl::string_view text,
                                             const std::string& folder);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_ROUTE_CONFIG_H_
