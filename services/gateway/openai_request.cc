#include "services/gateway/openai_request.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/json_depth.h"
#include "services/gateway/json_fields.h"
#include "services/gateway/openai_messages.h"
#include "services/gateway/structure_fields.h"
#include "services/gateway/unsupported_fields.h"

namespace onegrid::gateway {
namespace {

using nlohmann::json;

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
// The API's default for completions; chat has none.
constexpr int kCompletionMaxTokens = 16;
constexpr size_t kMaxStops = 16;

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

void ReadSampling(JsonFields& fields, CompletionRequest* request) {
  float temperature = 1, top_p = 1, min_p = 0, repetition_penalty = 1;
  int64_t top_k = 0;
  fields.Read("temperature", 0, 10, /*above_min=*/false, &temperature);
  fields.Read("top_p", 0, 1, /*above_min=*/true, &top_p);
  fields.Read("min_p", 0, 1, /*above_min=*/false, &min_p);
  fields.Read("repetition_penalty", 0.01, 10, /*above_min=*/false,
              &repetition_penalty);
  // -1 is how other servers spell "all".
  fields.Read("top_k", -1, kInt32Max, &top_k);
  request->sampling.set_temperature(temperature);
  request->sampling.set_top_p(top_p);
  request->sampling.set_min_p(min_p);
  request->sampling.set_repetition_penalty(repetition_penalty);
  request->sampling.set_top_k(static_cast<int32_t>(top_k < 0 ? 0 : top_k));
  const json* seed = fields.Find("seed");
  if (seed == nullptr) return;
  if (!seed->is_number_integer()) {
    return fields.Fail(InvalidField("seed", "seed is not an integer"));
  }
  request->seed = seed->is_number_unsigned()
                      ? seed->get<uint64_t>()
                      : static_cast<uint64_t>(seed->get<int64_t>());
}

void ReadStopping(JsonFields& fields, CompletionRequest* request) {
  int64_t max_tokens = request->chat ? kInt32Max : kCompletionMaxTokens;
  fields.Read("max_tokens", 1, kInt32Max, &max_tokens);
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
}

void ReadLogprobs(JsonFields& fields, CompletionRequest* request) {
  int64_t top = 0;
  const char* name = request->chat ? "top_logprobs" : "logprobs";
  if (request->chat) fields.Read("logprobs", &request->logprobs);
  fields.Read(name, 0, 20, &top);
  if (!request->chat) request->logprobs = fields.Find("logprobs") != nullptr;
  if (top == 0) return;
  if (!request->logprobs) {
    fields.Fail(InvalidField(name, "top_logprobs is set without logprobs"));
  }
  const bool greedy = request->sampling.temperature() == 0 &&
                      request->sampling.repetition_penalty() == 1;
  if (top > 1 || !greedy) {
    fields.Fail(UnsupportedField(
        name, absl::StrCat(name,
                           " above 0 is not supported, other than 1 with "
                           "temperature 0: the log-probability of the "
                           "chosen tokens is all there is")));
  }
  request->top_logprobs = static_cast<int>(top);
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
  ReadSampling(fields, &request);
  ReadStopping(fields, &request);
  ReadLogprobs(fields, &request);
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
