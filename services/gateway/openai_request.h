// Bodies of POST /v1/completions and /v1/chat/completions, read and checked.
#ifndef SERVICES_GATEWAY_OPENAI_REQUEST_H_
#define SERVICES_GATEWAY_OPENAI_REQUEST_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/onegrid/v1/generation.pb.h"
#include "services/gateway/openai_error.h"
#include "services/model/chat_turns.h"

namespace onegrid::gateway {

// Answers of one request at most: prompts times `n`.
inline constexpr int kMaxChoices = 16;
// Tools of a request, calls of an answer, results one after the other.
inline constexpr size_t kMaxTools = 128;
// As the backend has them.
inline constexpr size_t kMaxLogitBias = 1024;
inline constexpr int kMaxPriority = 100;
inline constexpr size_t kMaxCallerBytes = 256;
inline constexpr size_t kMaxStopTokens = 1024;
// Values within values at most; nothing in the API goes deeper than six.
inline constexpr int kMaxJsonDepth = 64;

// What a client asks for. Field names are those of the API.
struct CompletionRequest {
  bool chat = false;
  std::string model;
  // Of the inference server; set by who knows which names are adapters.
  std::string adapter;
  // For chat: the conversation, which RenderProblem has nothing against and
  // whose last turn is the user's or a tool's. Else at least one prompt.
  std::vector<model::Turn> turns;
  // The model is to think first: chat_template_kwargs.enable_thinking.
  bool enable_thinking = false;
  // What the model may call: functions as JSON text, DeclarationProblem has
  // nothing against them. None with tool_choice "none".
  std::vector<std::string> tools;
  std::vector<std::variant<std::string, v1::TokenIds>> prompts;
  int n = 1;
  bool stream = false;
  bool include_usage = false;
  bool logprobs = false;
  // Most likely tokens wanted beside each one: 0..20 for chat, 0..5 else.
  int top_logprobs = 0;
  // The answer begins with its prompt, which has log-probabilities, too, if
  // they are asked for. max_tokens may be 0 then.
  bool echo = false;
  // With the API's defaults: temperature 1, and max_tokens 16 for completions
  // and as many as fit for chat. The seed is apart, for it may be absent.
  v1::Sampling sampling;
  std::optional<uint64_t> seed;
  v1::Stopping stopping;
  // Of GenerateRequest: `priority` has the other sign there, since in this API,
  // as vLLM extends it, the lower value goes first. The caller is
  // `safety_identifier`, or `user`.
  int priority = 0;
  std::string caller;
  std::string cache_salt;
  // What the answer has to be. Not with thoughts, nor with tools to call.
  std::optional<v1::Structure> structure;
};

// Reads a body. Unknown fields are ignored and null is the same as absent.
// Error (always a 400 that names the field): not JSON, nested deeper than
// kMaxJsonDepth, a value of a wrong type or out of range, a field that asks
// for what the backend cannot do and would change the answer. Never throws.
// Thread-safe.
std::variant<CompletionRequest, ApiError> ParseChatRequest(
    absl::string_view body);
std::variant<CompletionRequest, ApiError> ParseCompletionRequest(
    absl::string_view body);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_OPENAI_REQUEST_H_
