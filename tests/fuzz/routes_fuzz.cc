// A file of routes, and a request's body as rules see it.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "services/gateway/route_config.h"
#include "services/gateway/route_facts.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid;
  const absl::string_view text = fuzz::View(data, size);
  const auto config = gateway::ParseRouteConfig(text, "/nonexistent");
  fuzz::PromiseNamed(config.status(), "");
  for (const bool chat : {false, true}) {
    const auto facts = gateway::ReadRouteFacts(text, chat, "", "", true);
    if (!facts.has_value()) continue;
    const auto changed = gateway::ReadRouteFacts(
        gateway::WithModel(text, "another"), chat, "", "", true);
    fuzz::Promise(changed.has_value(), "a body that is no longer JSON");
    fuzz::Promise(changed->text == facts->text &&
                      changed->is_private == facts->is_private &&
                      (changed->model == "another" || facts->model.empty()),
                  "more than the model has changed");
  }
  return 0;
}
