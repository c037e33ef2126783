#include "services/inference/generation_request.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/model/utf8.h"

namespace onegrid::inference {
namespace {

// What the proto calls the default when the field is not set.
constexpr int kDefaultMaxTokens = 128;

absl::StatusOr<std::vector<int32_t>> PromptTokens(
    const v1::GenerateRequest& request, const model::Tokenizer& tokenizer) {
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kText:
      if (request.text().empty()) return InvalidRequest("text is empty");
      if (!model::IsValidUtf8(request.text())) {
        return InvalidRequest("text is not UTF-8");
      }
      return tokenizer.Encode(request.text(), /*add_bos=*/true,
                              /*parse_control=*/false);
    case v1::GenerateRequest::kTokenIds: {
      const auto& ids = request.token_ids().ids();
      std::vector<int32_t> tokens(ids.begin(), ids.end());
      if (tokens.empty()) return InvalidRequest("token_ids is empty");
      RETURN_IF_ERROR(CheckTokenIds(tokens, tokenizer.vocab_size()));
      return tokens;
    }
    case v1::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return InvalidRequest("prompt is not set");
}

absl::StatusOr<SamplerOptions> ToSamplerOptions(const v1::Sampling& sampling,
                                                int64_t vocab_size) {
  SamplerOptions options;
  options.temperature = sampling.temperature();
  options.top_k = sampling.top_k();
  options.top_p = sampling.top_p() == 0 ? 1 : sampling.top_p();
  options.min_p = sampling.min_p();
  options.repetition_penalty =
      sampling.repetition_penalty() == 0 ? 1 : sampling.repetition_penalty();
  options.presence_penalty = sampling.presence_penalty();
  options.frequency_penalty = sampling.frequency_penalty();
  options.logit_bias.assign(sampling.logit_bias().begin(),
                            sampling.logit_bias().end());
  options.seed = sampling.seed();
  const absl::Status status = ValidateSampler(options, vocab_size);
  if (!status.ok()) return InvalidRequest(status.message());
  return options;
}

absl::Status ReadStopping(const v1::Stopping& stopping,
                          const model::Tokenizer& tokenizer,
                          GenerateOptions* options) {
  if (stopping.max_tokens() < 0) {
    return InvalidRequest(absl::StrCat("stopping.max_tokens is ",
                                       stopping.max_tokens(),
                                       ", expected 1 or more"));
  }
  options->max_tokens =
      stopping.max_tokens() == 0 ? kDefaultMaxTokens : stopping.max_tokens();
  if (stopping.stop_size() > kMaxStopStrings) {
    return InvalidRequest(absl::StrCat("stopping.stop has ",
                                       stopping.stop_size(),
                                       " strings, at most ", kMaxStopStrings));
  }
  for (const std::string& stop : stopping.stop()) {
    if (stop.empty() || stop.size() > kMaxStopStringBytes) {
      return InvalidRequest(absl::StrCat("a string of stopping.stop has ",
                                         stop.size(), " bytes, expected 1..",
                                         kMaxStopStringBytes));
    }
    options->stop_strings.push_back(stop);
  }
  const std::vector<int32_t> stop_tokens(stopping.stop_token_ids().begin(),
                                         stopping.stop_token_ids().end());
  RETURN_IF_ERROR(CheckTokenIds(stop_tokens, tokenizer.vocab_size()));
  options->stop_tokens.insert(stop_tokens.begin(), stop_tokens.end());
  options->ignore_eos = stopping.ignore_eos();
  return absl::OkStatus();
}

}  // namespace

absl::Status InvalidRequest(absl::string_view message) {
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "INVALID_REQUEST", message);
}

absl::Status ContextTooLong(int64_t tokens, int max_context) {
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "CONTEXT_TOO_LONG",
      absl::StrCat(tokens, " tokens do not fit the context of ", max_context),
      {{"tokens", absl::StrCat(tokens)},
       {"max_context", absl::StrCat(max_context)}});
}

absl::Status CheckTokenIds(absl::Span<const int32_t> tokens,
                           int64_t vocab_size) {
  for (int32_t token : tokens) {
    if (token < 0 || token >= vocab_size) {
      return InvalidRequest(absl::StrCat(
          "token id ", token, " is outside the vocabulary of ", vocab_size));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TaskPlace> ToTaskPlace(int priority, const std::string& caller,
                                      const std::string& cache_salt) {
  if (std::abs(int64_t{priority}) > kMaxPriority) {
    return InvalidRequest(absl::StrCat("priority is ", priority, ", expected -",
                                       kMaxPriority, "..", kMaxPriority));
  }
  for (const auto& [name, value] :
       {std::pair<const char*, const std::string&>{"caller", caller},
        {"cache_salt", cache_salt}}) {
    if (value.size() <= kMaxPlaceBytes) continue;
    return InvalidRequest(absl::StrCat(name, " has ", value.size(),
                                       " bytes, at most ", kMaxPlaceBytes));
  }
  return TaskPlace{priority, caller, cache_salt};
}

absl::StatusOr<GenerateOptions> ToGenerateOptions(
    const v1::GenerateRequest& request, const model::Tokenizer& tokenizer,
    int max_context) {
  GenerateOptions options;
  ASSIGN_OR_RETURN(options.prompt, PromptTokens(request, tokenizer));
  // Room for one token of output.
  if (static_cast<int64_t>(options.prompt.size()) >= max_context) {
    return ContextTooLong(options.prompt.size(), max_context);
  }
  ASSIGN_OR_RETURN(options.sampler, ToSamplerOptions(request.sampling(),
                                                     tokenizer.vocab_size()));
  RETURN_IF_ERROR(ReadStopping(request.stopping(), tokenizer, &options));
  ASSIGN_OR_RETURN(
      options.place,
      ToTaskPlace(request.priority(), request.caller(), request.cache_salt()));
  options.max_context = max_context;
  options.logprobs = request.logprobs();
  const int top_max = static_cast<int>(
      std::min<int64_t>(kMaxTopLogprobs, tokenizer.vocab_size()));
  if (request.top_logprobs() < 0 || request.top_logprobs() > top_max) {
    return InvalidRequest(absl::StrCat(
        "top_logprobs is ", request.top_logprobs(), ", expected 0..", top_max));
  }
  options.top_logprobs = request.top_logprobs();
  return options;
}

}  // namespace onegrid::inference
