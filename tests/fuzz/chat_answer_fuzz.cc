// An answer of a chat as a model says it; the first byte is how it is cut.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "services/gateway/chat_answer.h"
#include "tests/fuzz/fuzz_input.h"

namespace onegrid::fuzz {
namespace {

// All parts of `text`, which comes `step` bytes at a time.
std::string Parts(absl::string_view text, size_t step) {
  gateway::ChatAnswer answer;
  answer.Expect(text.size(), text.size());
  std::string said, reasoning, calls;
  const auto add = [&](const gateway::AnswerPart& part) {
    said += part.text;
    reasoning += part.reasoning;
    for (const gateway::AnsweredCall& call : part.calls) {
      Promise(!call.name.empty(), "a call of nothing");
      Promise(nlohmann::json::accept(call.arguments), "arguments not JSON");
      absl::StrAppend(&calls, "|", call.name, call.arguments);
    }
  };
  for (size_t i = 0; i < text.size(); i += step) {
    add(answer.Append(text.substr(i, step)));
  }
  add(answer.Finish());
  Promise(said.size() + reasoning.size() <= text.size(),
          "more text than was said");
  return absl::StrCat(said, "|", reasoning, calls);
}

}  // namespace
}  // namespace onegrid::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const absl::string_view text = onegrid::fuzz::View(data + 1, size - 1);
  const size_t step = 1 + data[0] % 16;
  onegrid::fuzz::Promise(
      onegrid::fuzz::Parts(text, step) == onegrid::fuzz::Parts(text, size),
      "parts that depend on how the answer is cut");
  return 0;
}
