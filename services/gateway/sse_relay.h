// A stream of server-sent events passed on, whole events only, and what is
// learned from it on the way.
#ifndef SERVICES_GATEWAY_SSE_RELAY_H_
#define SERVICES_GATEWAY_SSE_RELAY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "services/gateway/upstream_budget.h"

namespace onegrid::gateway {

// Of the JSON of an answer or of an event; nothing where it has none.
std::optional<TokenCount> UsageOf(absl::string_view json);

// Thread-compatible.
class SseRelay {
 public:
  // Longest event.
  static constexpr size_t kEventBytesMax = 1 << 20;

  // The events that `bytes` has completed, as they came: a stream that breaks
  // off within one can still be ended by an event of the gateway's own.
  std::string Append(absl::string_view bytes);

  // An event was longer than allowed; nothing more comes.
  bool too_large() const { return too_large_; }
  // "[DONE]" has come, so the stream is whole.
  bool done() const { return done_; }
  // Of the last event that tells it.
  const std::optional<TokenCount>& usage() const { return usage_; }
  // Events with data so far, of which most servers send one for each token.
  int64_t events() const { return events_; }

 private:
  void Read(absl::string_view event);

  std::string pending_;
  size_t searched_ = 0;  // of it, without an end of an event
  bool too_large_ = false;
  bool done_ = false;
  int64_t events_ = 0;
  std::optional<TokenCount> usage_;
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_SSE_RELAY_H_
