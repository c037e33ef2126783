#include "services/inference/generate_task.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/time/clock.h"
#include "services/inference/prompt_lookup.h"

namespace onegrid::inference {

GenerateTask::GenerateTask(GenerateOptions options, CallContext context,
                           const model::Tokenizer& tokenizer)
    : options_(std::move(options)),
      context_(std::move(context)),
      tokenizer_(tokenizer),
      tokens_(options_.prompt),
      sampler_(options_.sampler),
      text_(options_.stop_strings),
      created_(absl::Now()) {
  for (int32_t token : tokens_) sampler_.ObservePrompt(token);
  finished_.prompt_tokens = static_cast<int>(tokens_.size());
  if (options_.structure == nullptr) return;
  structure_ = std::make_unique<grammar::OutputMatcher>(
      options_.structure, /*may_end=*/!options_.ignore_eos);
}

GenerationEvent GenerateTask::NextEvent() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(
      +[](std::deque<GenerationEvent>* events) { return !events->empty(); },
      &events_));
  GenerationEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void GenerateTask::Push(GenerationEvent event) {
  absl::MutexLock lock(&mu_);
  events_.push_back(std::move(event));
}

int GenerateTask::most_tokens() const {
  const int64_t wanted = static_cast<int64_t>(options_.prompt.size()) +
                         std::max(0, options_.max_tokens);
  return static_cast<int>(std::min<int64_t>(wanted, options_.max_context));
}

void GenerateTask::OnStart(int restored) {
  started_ = absl::Now();
  first_token_ = started_;
  finished_.queue_time = started_ - created_;
  Push(GenerationStarted{finished_.prompt_tokens, restored});
}

std::vector<int32_t> GenerateTask::Draft(int most) const {
  // A guess in the place of the last token would be of no use.
  most = std::min(most, options_.max_tokens - finished_.completion_tokens - 1);
  most = std::min(most,
                  options_.max_context - static_cast<int>(tokens_.size()) - 1);
  return LookUpContinuation(tokens_, most);
}

void GenerateTask::OnLogits(int, absl::Span<float> logits) {
  if (ended_) return;
  for (const int32_t token : tokenizer_.vocabulary().suppressed) {
    logits[token] = -std::numeric_limits<float>::infinity();
  }
  // The sampler changes the row, so what log-probabilities need of it is taken
  // first.
  const bool wanted = options_.logprobs || options_.top_logprobs > 0;
  const double log_sum = wanted ? LogSumExp(logits) : 0;
  GenerationDelta delta;
  delta.top_ids = TopN(logits, options_.top_logprobs);
  for (const int32_t token : delta.top_ids) {
    delta.top_logprobs.push_back(static_cast<float>(logits[token] - log_sum));
  }
  std::vector<float> original;
  if (options_.logprobs && sampler_.changes_logits()) {
    original.assign(logits.begin(), logits.end());
  }
  if (structure_ != nullptr) {
    absl::Status status = structure_->Mask(logits);
    if (!status.ok()) return Fail(std::move(status));
  }
  const int32_t token = sampler_.Sample(logits);
  if (options_.logprobs) {
    const float logit = original.empty() ? logits[token] : original[token];
    delta.logprobs.push_back(static_cast<float>(logit - log_sum));
  }
  Take(token, std::move(delta));
}

int GenerateTask::top_logits() const {
  if (options_.logprobs || options_.top_logprobs > 0 || structure_ != nullptr) {
    return 0;
  }
  const model::Vocabulary& vocabulary = tokenizer_.vocabulary();
  const int wanted = sampler_.top_logits();
  if (wanted == 0) return 0;
  // As many of them may be suppressed.
  const size_t most = wanted + vocabulary.suppressed.size();
  return most <= vocabulary.tokens.size() ? static_cast<int>(most) : 0;
}

void GenerateTask::OnTopLogits(int, absl::Span<const cpu::TopProduct> best) {
  if (ended_) return;
  std::vector<cpu::TopProduct> allowed;
  for (const cpu::TopProduct& logit : best) {
    if (absl::c_linear_search(tokenizer_.vocabulary().suppressed,
                              logit.index)) {
      continue;
    }
    allowed.push_back(logit);
    if (allowed.size() == static_cast<size_t>(sampler_.top_logits())) break;
  }
  Take(sampler_.SampleTop(allowed), {});
}

bool GenerateTask::IsEndToken(int32_t token) {
  if (options_.stop_tokens.count(token) > 0) {
    finished_.reason = EndReason::kStopToken;
    finished_.stop_token = token;
    return true;
  }
  if (!options_.ignore_eos && tokenizer_.IsEndOfGeneration(token)) {
    finished_.reason = EndReason::kEndOfSequence;
    return true;
  }
  return false;
}

bool GenerateTask::IsStructureComplete() {
  if (structure_ == nullptr) return false;
  absl::StatusOr<bool> at_end = structure_->AtEnd();
  if (!at_end.ok()) Fail(at_end.status());
  return at_end.ok() && *at_end;
}

void GenerateTask::Fail(absl::Status status) {
  ended_ = true;
  failure_ = std::move(status);
}

void GenerateTask::Take(int32_t token, GenerationDelta delta) {
  if (finished_.completion_tokens == 0) first_token_ = absl::Now();
  if (IsEndToken(token)) {
    ended_ = true;
    return;
  }
  if (structure_ != nullptr) {
    absl::Status status = structure_->Accept(token);
    if (!status.ok()) return Fail(std::move(status));
  }
  tokens_.push_back(token);
  sampler_.ObserveOutput(token);
  ++finished_.completion_tokens;

  delta.text = text_.Append(tokenizer_.Piece(token));
  delta.tokens.push_back(token);
  Push(std::move(delta));

  ended_ = true;
  if (text_.stopped()) {
    finished_.reason = EndReason::kStopString;
    finished_.stop_string = text_.stop_string();
  } else if (IsStructureComplete()) {
    finished_.reason = EndReason::kEndOfSequence;
  } else if (finished_.completion_tokens >= options_.max_tokens) {
    finished_.reason = EndReason::kMaxTokens;
  } else if (static_cast<int>(tokens_.size()) >= options_.max_context) {
    finished_.reason = EndReason::kContextFull;
  } else {
    ended_ = !failure_.ok();
  }
}

void GenerateTask::OnEnd(const absl::Status& status) {
  if (!status.ok() || !failure_.ok()) {
    Push(status.ok() ? failure_ : status);
    return;
  }
  std::string rest = text_.Finish();
  if (!rest.empty()) Push(GenerationDelta{std::move(rest), {}, {}});
  finished_.prefill_time = first_token_ - started_;
  finished_.decode_time = absl::Now() - first_token_;
  Push(finished_);
}

}  // namespace onegrid::inference
