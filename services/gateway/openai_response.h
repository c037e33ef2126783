// Answers of the OpenAI API as JSON and server-sent events.
#ifndef SERVICES_GATEWAY_OPENAI_RESPONSE_H_
#define SERVICES_GATEWAY_OPENAI_RESPONSE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/onegrid/v1/generation.pb.h"

namespace onegrid::gateway {

// What all parts of one answer have in common.
struct ResponseHead {
  bool chat = false;
  std::string id;
  int64_t created_seconds = 0;  // since 1970
  std::string model;
  // Of the served file; empty is written as null.
  std::string fingerprint;
  bool logprobs = false;
  int top_logprobs = 0;
};

// The bytes that a token adds to a text, which may be a part of a character; of
// a control token, which adds none, its name.
struct TokenText {
  std::string bytes;
  bool control = false;
};

struct TokenAlternative {
  TokenText token;
  double logprob = 0;
};

// A token of an answer, or of a prompt that is repeated in one.
struct GeneratedToken {
  TokenText token;
  std::optional<double> logprob;
  std::vector<TokenAlternative> top = {};  // most likely first
  int64_t text_offset = 0;                 // characters of the answer before it
};

struct ChoiceCall {
  std::string id;
  std::string name;
  std::string arguments;  // a JSON object
};

// One of the answers, or a part of it. finish_reason: "" while it goes on.
struct Choice {
  int index = 0;
  std::string text;
  std::vector<GeneratedToken> tokens;
  std::string finish_reason;
  // Of a chat: what the model thought, its calls of tools, and how many of this
  // answer came before them.
  std::string reasoning = {};
  std::vector<ChoiceCall> calls = {};
  int calls_before = 0;
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompts, those that did not run again
  int64_t completion_tokens = 0;
};

// "stop" or "length", or "tool_calls" if tools were called and the model ended
// by itself.
std::string FinishReasonName(v1::FinishReason reason, bool called = false);

// The whole answer.
std::string ResponseJson(const ResponseHead& head,
                         absl::Span<const Choice> choices, const Usage& usage);

// One chunk of a stream. With `opens`, of chat, it names the role. With
// `usage_follows` it says "usage": null, as all but the last chunk do where
// usage was asked for.
std::string ChunkJson(const ResponseHead& head, const Choice& choice,
                      bool opens, bool usage_follows);

// The chunk after the last one, with the usage and no choices.
std::string UsageChunkJson(const ResponseHead& head, const Usage& usage);

// "data: {json}\n\n". `json` has no line breaks.
std::string SseEvent(absl::string_view json);

// The name of a token in JSON: its bytes if they are UTF-8, else "bytes:\\xe2"
// and so on, as OpenAI writes them.
std::string TokenName(const TokenText& token);

// Number of characters of UTF-8 text.
int64_t CharacterCount(absl::string_view utf8);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_OPENAI_RESPONSE_H_
