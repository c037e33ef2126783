#include "services/gateway/openai_response.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/model/utf8.h"

namespace onegrid::gateway {
namespace {

using nlohmann::json;

// JSON has no infinities; this is what other servers write.
constexpr double kLeastLogprob = -9999;

std::string Dump(const json& object) {
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

double Finite(double logprob) {
  return std::isfinite(logprob) ? std::max(logprob, kLeastLogprob)
                                : kLeastLogprob;
}

// Of a control token, which is no text, null.
json Bytes(const TokenText& token) {
  if (token.control) return nullptr;
  json bytes = json::array();
  for (const unsigned char byte : token.bytes) bytes.push_back(byte);
  return bytes;
}

json ChatToken(const TokenText& token, double logprob) {
  return {{"token", TokenName(token)},
          {"logprob", Finite(logprob)},
          {"bytes", Bytes(token)}};
}

json ChatLogprobs(const Choice& choice) {
  json content = json::array();
  for (const GeneratedToken& token : choice.tokens) {
    json entry = ChatToken(token.token, token.logprob.value_or(0));
    entry["top_logprobs"] = json::array();
    for (const TokenAlternative& other : token.top) {
      entry["top_logprobs"].push_back(ChatToken(other.token, other.logprob));
    }
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

// The most likely tokens and the one that is there, which may be none of them.
json CompletionTop(const GeneratedToken& token) {
  if (!token.logprob.has_value()) return nullptr;
  json top = json::object();
  for (const TokenAlternative& other : token.top) {
    top.emplace(TokenName(other.token), Finite(other.logprob));
  }
  top.emplace(TokenName(token.token), Finite(*token.logprob));
  return top;
}

json CompletionLogprobs(const ResponseHead& head, const Choice& choice) {
  json tokens = json::array(), logprobs = json::array(), top = json::array(),
       offsets = json::array();
  for (const GeneratedToken& token : choice.tokens) {
    tokens.push_back(TokenName(token.token));
    logprobs.push_back(nullptr);
    if (token.logprob.has_value()) logprobs.back() = Finite(*token.logprob);
    top.push_back(CompletionTop(token));
    offsets.push_back(token.text_offset);
  }
  json object = {{"tokens", std::move(tokens)},
                 {"token_logprobs", std::move(logprobs)},
                 {"top_logprobs", nullptr},
                 {"text_offset", std::move(offsets)}};
  if (head.top_logprobs > 0) object["top_logprobs"] = std::move(top);
  return object;
}

// The calls of a stream are numbered.
void AddThoughtsAndCalls(const Choice& choice, bool numbered, json* message) {
  if (!choice.reasoning.empty()) {
    (*message)["reasoning_content"] = choice.reasoning;
  }
  for (size_t i = 0; i < choice.calls.size(); ++i) {
    const ChoiceCall& call = choice.calls[i];
    json object = {
        {"id", call.id},
        {"type", "function"},
        {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
    if (numbered) object["index"] = choice.calls_before + static_cast<int>(i);
    (*message)["tool_calls"].push_back(std::move(object));
  }
}

json Message(const Choice& choice) {
  json message = {
      {"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
  if (choice.text.empty() && !choice.calls.empty()) {
    message["content"] = nullptr;
  }
  AddThoughtsAndCalls(choice, /*numbered=*/false, &message);
  return message;
}

// What a choice has in a whole answer and in a chunk alike.
json ChoiceCommon(const ResponseHead& head, const Choice& choice) {
  json object = {{"index", choice.index},
                 {"logprobs", nullptr},
                 {"finish_reason", nullptr}};
  if (!choice.finish_reason.empty()) {
    object["finish_reason"] = choice.finish_reason;
  }
  if (head.logprobs) {
    object["logprobs"] =
        head.chat ? ChatLogprobs(choice) : CompletionLogprobs(head, choice);
  }
  return object;
}

json Envelope(const ResponseHead& head, const char* kind) {
  json object = {{"id", head.id},
                 {"object", kind},
                 {"created", head.created_seconds},
                 {"model", head.model},
                 {"choices", json::array()},
                 {"system_fingerprint", nullptr}};
  if (!head.fingerprint.empty()) {
    object["system_fingerprint"] = head.fingerprint;
  }
  return object;
}

json ChunkEnvelope(const ResponseHead& head) {
  return Envelope(head,
                  head.chat ? "chat.completion.chunk" : "text_completion");
}

json UsageObject(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

}  // namespace

std::string FinishReasonName(v1::FinishReason reason, bool called) {
  switch (reason) {
    case v1::MAX_TOKENS:
    case v1::CONTEXT_FULL:
      return "length";
    default:
      return called ? "tool_calls" : "stop";
  }
}

std::string ResponseJson(const ResponseHead& head,
                         absl::Span<const Choice> choices, const Usage& usage) {
  json object =
      Envelope(head, head.chat ? "chat.completion" : "text_completion");
  for (const Choice& choice : choices) {
    json entry = ChoiceCommon(head, choice);
    if (head.chat) {
      entry["message"] = Message(choice);
    } else {
      entry["text"] = choice.text;
    }
    object["choices"].push_back(std::move(entry));
  }
  object["usage"] = UsageObject(usage);
  return Dump(object);
}

std::string ChunkJson(const ResponseHead& head, const Choice& choice,
                      bool opens, bool usage_follows) {
  json object = ChunkEnvelope(head);
  json entry = ChoiceCommon(head, choice);
  if (head.chat) {
    json delta = json::object();
    if (opens) delta["role"] = "assistant";
    if (opens || !choice.text.empty()) delta["content"] = choice.text;
    AddThoughtsAndCalls(choice, /*numbered=*/true, &delta);
    entry["delta"] = std::move(delta);
    if (choice.tokens.empty()) entry["logprobs"] = nullptr;
  } else {
    entry["text"] = choice.text;
  }
  object["choices"].push_back(std::move(entry));
  if (usage_follows) object["usage"] = nullptr;
  return Dump(object);
}

std::string UsageChunkJson(const ResponseHead& head, const Usage& usage) {
  json object = ChunkEnvelope(head);
  object["usage"] = UsageObject(usage);
  return Dump(object);
}

std::string SseEvent(absl::string_view json) {
  return absl::StrCat("data: ", json, "\n\n");
}

std::string TokenName(const TokenText& token) {
  if (model::IsValidUtf8(token.bytes)) return token.bytes;
  std::string name = "bytes:";
  for (const unsigned char byte : token.bytes) {
    absl::StrAppend(&name, "\\x", absl::Hex(byte, absl::kZeroPad2));
  }
  return name;
}

int64_t CharacterCount(absl::string_view utf8) {
  return std::count_if(utf8.begin(), utf8.end(),
                       [](char byte) { return (byte & 0xC0) != 0x80; });
}

}  // namespace onegrid::gateway
