#include "services/inference/generation_service.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/common/error_info.h"
#include "services/inference/generate_task.h"
#include "services/inference/generation_request.h"
#include "services/model/utf8.h"

namespace onegrid::inference {
namespace {

void SetDuration(absl::Duration duration, google::protobuf::Duration* proto) {
  const int64_t nanos = absl::ToInt64Nanoseconds(duration);
  proto->set_seconds(nanos / 1'000'000'000);
  proto->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
}

v1::FinishReason ToProto(EndReason reason) {
  switch (reason) {
    case EndReason::kEndOfSequence:
      return v1::END_OF_SEQUENCE;
    case EndReason::kStopString:
      return v1::STOP_STRING;
    case EndReason::kStopToken:
      return v1::STOP_TOKEN;
    case EndReason::kMaxTokens:
      return v1::MAX_TOKENS;
    case EndReason::kContextFull:
      return v1::CONTEXT_FULL;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

v1::GenerateResponse ToProto(const GenerationDelta& delta) {
  v1::GenerateResponse response;
  v1::Delta& proto = *response.mutable_delta();
  proto.set_text(delta.text);
  proto.mutable_token_ids()->Add(delta.tokens.begin(), delta.tokens.end());
  proto.mutable_logprobs()->Add(delta.logprobs.begin(), delta.logprobs.end());
  proto.mutable_top_ids()->Add(delta.top_ids.begin(), delta.top_ids.end());
  proto.mutable_top_logprobs()->Add(delta.top_logprobs.begin(),
                                    delta.top_logprobs.end());
  return response;
}

v1::GenerateResponse ToProto(const GenerationFinished& finished) {
  v1::GenerateResponse response;
  v1::Finished& proto = *response.mutable_finished();
  proto.set_reason(ToProto(finished.reason));
  proto.set_stop_string(finished.stop_string);
  proto.set_stop_token(finished.stop_token);
  proto.set_prompt_tokens(finished.prompt_tokens);
  proto.set_completion_tokens(finished.completion_tokens);
  SetDuration(finished.queue_time, proto.mutable_queue_time());
  SetDuration(finished.prefill_time, proto.mutable_prefill_time());
  SetDuration(finished.decode_time, proto.mutable_decode_time());
  proto.set_preemptions(finished.preemptions);
  return response;
}

v1::AdapterInfo ToProto(const std::string& name, const LoraAdapter& adapter) {
  v1::AdapterInfo proto;
  proto.set_name(name);
  proto.set_sha256(adapter.sha256());
  proto.set_rank(static_cast<int32_t>(adapter.max_rank()));
  proto.set_linears(adapter.linears());
  proto.set_bytes(adapter.bytes());
  return proto;
}

}  // namespace

GenerationService::GenerationService(const model::Tokenizer& tokenizer,
                                     Scheduler& scheduler,
                                     AdapterRegistry& adapters,
                                     v1::ServerInfo info)
    : tokenizer_(tokenizer),
      scheduler_(scheduler),
      adapters_(adapters),
      info_(std::move(info)),
      grammars_(tokenizer) {}

absl::Status GenerationService::Generate(
    const v1::GenerateRequest& request, const CallContext& context,
    absl::FunctionRef<bool(const v1::GenerateResponse&)> write) {
  ASSIGN_OR_RETURN(GenerateOptions options,
                   ToGenerateOptions(request, tokenizer_, info_.max_context()));
  if (request.has_structure()) {
    ASSIGN_OR_RETURN(options.structure, grammars_.Compile(request.structure()));
  }
  ASSIGN_OR_RETURN(options.adapter, adapters_.Find(request.adapter()));
  const std::string adapter_sha256 =
      options.adapter == nullptr ? "" : options.adapter->sha256();
  options.place.cache_salt =
      SharingSalt(options.adapter.get(), options.place.cache_salt);
  AdapterUse::Request use(adapter_use_, request.adapter());
  // A reader that has gone away is noticed by its failed write, too; the task
  // then learns of it through this flag.
  auto write_failed = std::make_shared<std::atomic<bool>>(false);
  CallContext task_context = context;
  task_context.cancelled = [write_failed, cancelled = context.cancelled] {
    return write_failed->load() || (cancelled && cancelled());
  };
  auto task = std::make_shared<GenerateTask>(
      std::move(options), std::move(task_context), tokenizer_);
  RETURN_IF_ERROR(scheduler_.Submit(task));
  // Events are read to the last one even after a failed write: the task uses
  // `context` until then.
  while (true) {
    const GenerationEvent event = task->NextEvent();
    if (const auto* status = std::get_if<absl::Status>(&event)) return *status;
    v1::GenerateResponse response;
    if (const auto* started = std::get_if<GenerationStarted>(&event)) {
      use.Started();
      response.mutable_started()->set_artifact_sha256(info_.artifact_sha256());
      response.mutable_started()->set_prompt_tokens(started->prompt_tokens);
      response.mutable_started()->set_cached_tokens(started->cached_tokens);
      response.mutable_started()->set_adapter_sha256(adapter_sha256);
    } else if (const auto* delta = std::get_if<GenerationDelta>(&event)) {
      response = ToProto(*delta);
    } else {
      response = ToProto(std::get<GenerationFinished>(event));
    }
    if (!*write_failed && !write(response)) *write_failed = true;
    if (!response.has_finished()) continue;
    if (!*write_failed) return absl::OkStatus();
    return common::MakeError(absl::StatusCode::kCancelled, "CANCELLED",
                             "the caller went away");
  }
}

absl::StatusOr<ScoreOptions> GenerationService::ToScoreOptions(
    const v1::ScoreTokensRequest& request) const {
  ScoreOptions options;
  options.tokens.assign(request.token_ids().begin(), request.token_ids().end());
  const int64_t n = request.token_ids_size();
  if (n < 2) return InvalidRequest("token_ids has fewer than two ids");
  if (n - 1 > info_.max_context()) {
    return ContextTooLong(n - 1, info_.max_context());
  }
  RETURN_IF_ERROR(CheckTokenIds(options.tokens, info_.vocab_size()));
  options.first_scored =
      request.first_scored() == 0 ? 1 : request.first_scored();
  if (options.first_scored < 1 || options.first_scored >= n) {
    return InvalidRequest(absl::StrCat("first_scored is ", options.first_scored,
                                       ", expected 1..", n - 1));
  }
  options.top_n = request.top_n();
  const int width_max = std::min<int>(kMaxScoreWidth, info_.vocab_size());
  if (options.top_n < 0 || options.top_n > width_max) {
    return InvalidRequest(
        absl::StrCat("top_n is ", options.top_n, ", expected 0..", width_max));
  }
  options.candidates_per_position = request.candidates_per_position();
  if (options.candidates_per_position < 0 ||
      options.candidates_per_position > kMaxScoreWidth) {
    return InvalidRequest(absl::StrCat("candidates_per_position is ",
                                       options.candidates_per_position,
                                       ", expected 0..", kMaxScoreWidth));
  }
  const int64_t expected =
      (n - options.first_scored) * options.candidates_per_position;
  if (request.candidate_ids_size() != expected) {
    return InvalidRequest(absl::StrCat("candidate_ids has ",
                                       request.candidate_ids_size(),
                                       " ids, expected ", expected));
  }
  options.candidates.assign(request.candidate_ids().begin(),
                            request.candidate_ids().end());
  RETURN_IF_ERROR(CheckTokenIds(options.candidates, info_.vocab_size()));
  ASSIGN_OR_RETURN(options.adapter, adapters_.Find(request.adapter()));
  ASSIGN_OR_RETURN(
      options.place,
      ToTaskPlace(request.priority(), request.caller(), request.cache_salt()));
  options.place.cache_salt =
      SharingSalt(options.adapter.get(), options.place.cache_salt);
  return options;
}

absl::StatusOr<v1::ScoreTokensResponse> GenerationService::ScoreTokens(
    const v1::ScoreTokensRequest& request, const CallContext& context) {
  ASSIGN_OR_RETURN(ScoreOptions options, ToScoreOptions(request));
  const absl::Time start = absl::Now();
  AdapterUse::Request use(adapter_use_, request.adapter());
  options.on_start = [&use] { use.Started(); };
  auto task = std::make_shared<ScoreTask>(std::move(options), context);
  RETURN_IF_ERROR(scheduler_.Submit(task));
  ASSIGN_OR_RETURN(const Scores scores, task->Wait());
  v1::ScoreTokensResponse response;
  response.mutable_logprobs()->Add(scores.logprobs.begin(),
                                   scores.logprobs.end());
  response.mutable_argmax_ids()->Add(scores.argmax.begin(),
                                     scores.argmax.end());
  response.mutable_top_ids()->Add(scores.top_ids.begin(), scores.top_ids.end());
  response.mutable_top_logprobs()->Add(scores.top_logprobs.begin(),
                                       scores.top_logprobs.end());
  response.mutable_candidate_logprobs()->Add(scores.candidate_logprobs.begin(),
                                             scores.candidate_logprobs.end());
  SetDuration(absl::Now() - start, response.mutable_compute_time());
  return response;
}

absl::StatusOr<v1::TokenizeResponse> GenerationService::Tokenize(
    const v1::TokenizeRequest& request) const {
  if (!model::IsValidUtf8(request.text()))
    return InvalidRequest("text is not UTF-8");
  const std::vector<int32_t> tokens = tokenizer_.Encode(
      request.text(), request.add_bos(), request.parse_control_tokens());
  v1::TokenizeResponse response;
  response.mutable_token_ids()->Add(tokens.begin(), tokens.end());
  return response;
}

absl::StatusOr<v1::AdapterInfo> GenerationService::LoadAdapter(
    const v1::LoadAdapterRequest& request) {
  ASSIGN_OR_RETURN(
      const AdapterRegistry::Handle adapter,
      adapters_.LoadBelow(request.name(), request.path(), request.sha256()));
  return ToProto(request.name(), *adapter);
}

absl::Status GenerationService::UnloadAdapter(
    const v1::UnloadAdapterRequest& request) {
  return adapters_.Unload(request.name());
}

v1::ListAdaptersResponse GenerationService::ListAdapters() const {
  v1::ListAdaptersResponse response;
  for (const auto& [name, adapter] : adapters_.List()) {
    *response.add_adapters() = ToProto(name, *adapter);
  }
  return response;
}

v1::Load GenerationService::GetLoad() const {
  const Scheduler::Load load = scheduler_.load();
  v1::Load proto;
  proto.set_running(load.running);
  proto.set_queued(load.queued);
  proto.set_kv_bytes(load.kv_bytes);
  proto.set_prefix_cache_bytes(load.prefix_bytes);
  proto.set_kv_bytes_limit(scheduler_.kv_limit());
  proto.set_preemptions(load.preemptions);
  proto.set_prefix_tokens_asked(load.prefix_tokens_asked);
  proto.set_prefix_tokens_restored(load.prefix_tokens_restored);
  proto.set_guesses_tried(load.drafts.tried);
  proto.set_guesses_accepted(load.drafts.accepted);
  proto.set_idle_prefix_cache_bytes(load.idle_prefix_bytes);
  for (const auto& [name, counts] : adapter_use_.counts()) {
    if (counts.running > 0) {
      (*proto.mutable_adapter_running())[name] = counts.running;
    }
    if (counts.queued > 0) {
      (*proto.mutable_adapter_queued())[name] = counts.queued;
    }
  }
  proto.set_max_adapters(adapters_.max_adapters());
  return proto;
}

}  // namespace onegrid::inference
