// A body of POST /v1/chat/completions and of POST /v1/completions.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <variant>

#include "services/gateway/openai_error.h"
#include "services/gateway/openai_request.h"
#include "services/model/chat_pieces.h"
#include "tests/fuzz/fuzz_input.h"

namespace onegrid::fuzz {
namespace {

using Parsed = std::variant<gateway::CompletionRequest, gateway::ApiError>;

void Check(const Parsed& parsed) {
  if (const auto* error = std::get_if<gateway::ApiError>(&parsed)) {
    Promise(error->http_status == 400 && !error->message.empty(),
            "an error that is not the client's");
    Promise(!gateway::ErrorJson(*error).empty(), "an error without a body");
    return;
  }
  const auto& request = std::get<gateway::CompletionRequest>(parsed);
  Promise(request.n >= 1 && request.n <= gateway::kMaxChoices, "n");
  Promise(request.stopping.max_tokens() >= (request.echo ? 0 : 1),
          "max_tokens");
  Promise(request.sampling.temperature() >= 0, "temperature");
  Promise(request.sampling.top_p() > 0, "top_p");
  Promise(std::abs(request.sampling.presence_penalty()) <= 2, "a penalty");
  Promise(request.sampling.logit_bias_size() <= 1024, "logit_bias");
  for (const auto& [token, bias] : request.sampling.logit_bias()) {
    Promise(token >= 0 && std::abs(bias) <= 100, "an entry of logit_bias");
  }
  if (request.chat) {
    model::ChatPieces(request.turns, {model::ChatFormat::kGemma4EmptyThought,
                                      /*open_answer=*/true,
                                      request.enable_thinking, request.tools});
  } else {
    Promise(!request.prompts.empty(), "no prompt");
  }
}

}  // namespace
}  // namespace onegrid::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view body = onegrid::fuzz::View(data, size);
  onegrid::fuzz::Check(onegrid::gateway::ParseChatRequest(body));
  onegrid::fuzz::Check(onegrid::gateway::ParseCompletionRequest(body));
  return 0;
}
