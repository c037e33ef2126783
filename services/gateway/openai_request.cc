#include "services/gateway/openai_request.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/json_depth.h"
#include "services/gateway/json_fields.h"
#include "services/gateway/openai_messages.h"
#include "services/gateway/sampling_fields.h"
#include "services/gateway/structure_fields.h"
#include "services/gateway/unsupported_fields.h"

namespace onegrid::gateway {
namespace {

using nlohmann::json;

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
// The API's default for completions; chat has none.
constexpr int kCompletionMaxTokens = 16;
constexpr size_t kMaxStops = 16;
// As OpenAI has them.
constexpr int kMaxChatTop = 20;
constexpr int kMaxCompletionTop = 5;

std::optional<ApiError> ParseJson(absl::string_view body, json* out) {
  if (common::NestsDeeperThan(body, kMaxJsonDepth)) {
    return InvalidField(
        "", absl::StrCat("the body is nested deeper than ", kMaxJsonDepth));
  }
  try {
    *out = json::parse(body);
    return std::nullopt;
  } catch (const json::parse_error& error) {
    // The library's own words quote the body, which may hold a prompt.
    return InvalidField(
        "", absl::StrCat("the body is not JSON: wrong at byte ", error.byte));
  } catch (const json::exception&) {
    return InvalidField("", "the body has a number that is out of range");
  }
}

bool IsTokenId(const json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() <= kInt32Max;
}

// One prompt: a string or a list of token ids.
void ReadPrompt(const json& value, JsonFields& fields,
                CompletionRequest* request) {
  if (value.is_string() && !value.get_ref<const std::string&>().empty()) {
    request->prompts.emplace_back(value.get<std::string>());
    return;
  }
  v1::TokenIds tokens;
  bool valid = value.is_array() && !value.empty();
  for (size_t i = 0; valid && i < value.size(); ++i) {
    valid = IsTokenId(value[i]);
    if (valid) tokens.add_ids(value[i].get<int32_t>());
  }
  if (!valid) {
    return fields.Fail(InvalidField(
        "prompt",
        "a prompt is neither a string nor a list of token ids, or it "
        "is empty"));
  }
  request->prompts.emplace_back(std::move(tokens));
}

void ReadPrompts(JsonFields& fields, CompletionRequest* request) {
  const json* prompt = fields.Find("prompt");
  if (prompt == nullptr) {
    return fields.Fail(InvalidField("prompt", "prompt is missing"));
  }
  const bool is_list =
      prompt->is_array() && !prompt->empty() && !prompt->front().is_number();
  if (!is_list) return ReadPrompt(*prompt, fields, request);
  for (const json& element : *prompt) {
    ReadPrompt(element, fields, request);
    if (fields.error()) return;
  }
}

void ReadStopTokens(JsonFields& fields, v1::Stopping* stopping) {
  constexpr char kName[] = "stop_token_ids";
  const json* ids = fields.Find(kName);
  if (ids == nullptr) return;
  bool valid = ids->is_array() && ids->size() <= kMaxStopTokens;
  for (size_t i = 0; valid && i < ids->size(); ++i) {
    valid = IsTokenId((*ids)[i]);
    if (valid) stopping->add_stop_token_ids((*ids)[i].get<int32_t>());
  }
  if (valid) return;
  fields.Fail(InvalidField(
      kName, absl::StrCat("stop_token_ids is not a list of at most ",
                          kMaxStopTokens, " token ids")));
}

// Of chat, and whether it is true or not, it is nothing that OpenAI has.
void ReadEcho(JsonFields& fields, CompletionRequest* request) {
  fields.Read("echo", &request->echo);
  if (!request->chat || !request->echo) return;
  fields.Fail(
      UnsupportedField("echo", "echo is not supported for conversations"));
}

void ReadStopping(JsonFields& fields, CompletionRequest* request) {
  int64_t max_tokens = request->chat ? kInt32Max : kCompletionMaxTokens;
  fields.Read("max_tokens", request->echo ? 0 : 1, kInt32Max, &max_tokens);
  fields.Read("max_completion_tokens", 1, kInt32Max, &max_tokens);
  request->stopping.set_max_tokens(static_cast<int32_t>(max_tokens));
  bool ignore_eos = false;
  fields.Read("ignore_eos", &ignore_eos);
  request->stopping.set_ignore_eos(ignore_eos);
  std::vector<std::string> stops;
  fields.Read("stop", &stops);
  if (stops.size() > kMaxStops) {
    fields.Fail(
        InvalidField("stop", absl::StrCat("stop has ", stops.size(),
                                          " strings, at most ", kMaxStops)));
  }
  for (std::string& stop : stops) {
    if (stop.empty()) {
      fields.Fail(InvalidField("stop", "a string of stop is empty"));
    }
    request->stopping.add_stop(std::move(stop));
  }
  ReadStopTokens(fields, &request->stopping);
}

void ReadLogprobs(JsonFields& fields, CompletionRequest* request) {
  int64_t top = 0;
  if (request->chat) {
    fields.Read("logprobs", &request->logprobs);
    fields.Read("top_logprobs", 0, kMaxChatTop, &top);
  } else {
    request->logprobs = fields.Find("logprobs") != nullptr;
    fields.Read("logprobs", 0, kMaxCompletionTop, &top);
  }
  if (top > 0 && !request->logprobs) {
    fields.Fail(
        InvalidField("top_logprobs", "top_logprobs is set without logprobs"));
  }
  request->top_logprobs = static_cast<int>(top);
}

// At most kMaxCallerBytes.
void ReadName(JsonFields& fields, const char* name, std::string* out) {
  fields.Read(name, out);
  if (out->size() <= kMaxCallerBytes) return;
  fields.Fail(InvalidField(
      name, absl::StrCat(name, " has ", out->size(),
                         " bytes, expected at most ", kMaxCallerBytes)));
}

// Whose request it is and how it stands beside others.
void ReadPlace(JsonFields& fields, CompletionRequest* request) {
  int64_t priority = 0;
  fields.Read("priority", -kMaxPriority, kMaxPriority, &priority);
  request->priority = static_cast<int>(-priority);
  ReadName(fields, "user", &request->caller);
  ReadName(fields, "safety_identifier", &request->caller);
  ReadName(fields, "cache_salt", &request->cache_salt);
}

void ReadStreaming(JsonFields& fields, CompletionRequest* request) {
  fields.Read("stream", &request->stream);
  const json* options = fields.Find("stream_options");
  if (options == nullptr) return;
  if (!request->stream) {
    return fields.Fail(
        InvalidField("stream_options", "stream_options is set without stream"));
  }
  JsonFields inner(*options);
  inner.Read("include_usage", &request->include_usage);
  if (inner.error()) {
    fields.Fail(InvalidField("stream_options", inner.error()->message));
  }
}

// As other servers of this API take it. Other names change what is rendered.
void ReadTemplateArguments(JsonFields& fields, CompletionRequest* request) {
  constexpr char kName[] = "chat_template_kwargs";
  const json* arguments = fields.Find(kName);
  if (arguments == nullptr) return;
  if (!arguments->is_object()) {
    return fields.Fail(
        InvalidField(kName, "chat_template_kwargs is not an object"));
  }
  for (const auto& [key, value] : arguments->items()) {
    if (key != "enable_thinking") {
      return fields.Fail(
          UnsupportedField(kName,
                           "chat_template_kwargs has another name than "
                           "enable_thinking, the only one that is supported"));
    }
    if (!value.is_boolean()) {
      return fields.Fail(InvalidField(
          kName, "chat_template_kwargs.enable_thinking is not a boolean"));
    }
    request->enable_thinking = value.get<bool>();
  }
}

// Thoughts and calls come before the answer, or in its place.
void CheckStructure(JsonFields& fields, const CompletionRequest& request) {
  if (!request.structure) return;
  if (request.enable_thinking) {
    fields.Fail(UnsupportedField(
        "chat_template_kwargs",
        "enable_thinking is not supported together with response_format and "
        "other fields that say what the answer has to be"));
  }
  if (!request.tools.empty()) {
    fields.Fail(UnsupportedField(
        "tools",
        "tools are not supported together with response_format and other "
        "fields that say what the answer has to be, unless tool_choice is "
        "\"none\""));
  }
}

std::variant<CompletionRequest, ApiError> Parse(absl::string_view body,
                                                bool chat) {
  json object;
  if (auto error = ParseJson(body, &object)) return *std::move(error);
  JsonFields fields(object);
  CompletionRequest request;
  request.chat = chat;
  fields.Read("model", &request.model);
  if (request.model.empty()) {
    fields.Fail(InvalidField("model", "model is missing"));
  }
  int64_t n = 1;
  fields.Read("n", 1, kMaxChoices, &n);
  request.n = static_cast<int>(n);
  ReadSampling(fields, &request.sampling, &request.seed);
  ReadEcho(fields, &request);
  ReadStopping(fields, &request);
  ReadLogprobs(fields, &request);
  ReadPlace(fields, &request);
  ReadStreaming(fields, &request);
  RefuseUnsupported(fields);
  if (chat) ReadTemplateArguments(fields, &request);
  if (!fields.error() && chat) {
    ReadMessages(fields, &request.turns);
    ReadTools(fields, body, &request.tools);
  }
  if (!fields.error() && !chat) ReadPrompts(fields, &request);
  ReadStructure(fields, body, &request.structure);
  CheckStructure(fields, request);
  if (request.prompts.size() * request.n > kMaxChoices) {
    fields.Fail(InvalidField(
        "n", absl::StrCat(request.prompts.size(), " prompts with n ", n,
                          " are more than ", kMaxChoices, " answers")));
  }
  if (fields.error()) return *fields.error();
  return request;
}

}  // namespace

std::variant<CompletionRequest, ApiError> ParseChatRequest(
    absl::string_view body) {
  return Parse(body, /*chat=*/true);
}

std::variant<CompletionRequest, ApiError> ParseCompletionRequest(
    absl::string_view body) {
  return Parse(body, /*chat=*/false);
}

}  // namespace onegrid::gateway
