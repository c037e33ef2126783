// What rules ask about a request, read from its body and headers.
#ifndef SERVICES_GATEWAY_ROUTE_FACTS_H_
#define SERVICES_GATEWAY_ROUTE_FACTS_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace onegrid::gateway {

struct RouteFacts {
  static constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

  // The request must not leave.
  bool is_private = true;
  std::string model;
  std::string task;  // empty: none
  // Asked for; kNoLimit where a chat has none.
  int64_t max_tokens = kNoLimit;
  int64_t n = 1;
  bool stream = false;
  bool has_tools = false;
  bool has_response_format = false;  // other than text
  // A prompt is in ids of the local model's vocabulary, which mean nothing to
  // another model.
  bool has_token_ids = false;
  // All text of the messages or prompts.
  std::string text;
  int64_t characters = 0;
};

// `privacy` and `task`: values of the headers x-onegrid-privacy and
// x-onegrid-task, several joined by ", "; empty where there are none. A request
// is private if one of the header and metadata.privacy is anything but
// "public", or if neither is there and `private_by_default`. The header's task
// goes before metadata.task. Nothing: the body is not a JSON object of sane
// depth. Values of wrong types, which no model would take, are left out.
// Thread-safe.
std::optional<RouteFacts> ReadRouteFacts(absl::string_view body, bool chat,
                                         absl::string_view privacy,
                                         absl::string_view task,
                                         bool private_by_default);

// `body`, a JSON object, with another value of "model" and every other byte as
// it was. Thread-safe.
std::string WithModel(absl::string_view body, absl::string_view model);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_ROUTE_FACTS_H_
