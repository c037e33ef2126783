#include "services/evaluator/task_eval.h"

#include <algorithm>
#include <cmath>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "google/protobuf/util/time_util.h"
#include "services/common/error_info.h"

namespace onegrid::evaluator {
namespace {

constexpr int32_t kEos = 1;
// Room for a wrong answer to show itself beyond the right one's length.
constexpr int kExtraTokens = 4;
constexpr int kSpeedProbes = 5;
constexpr size_t kSpeedPromptTokens = 512;
constexpr int kSpeedDecodeTokens = 64;

// What one example says of the model.
struct Outcome {
  bool right = false;
  double log_prob = 0;  // of all scored tokens, nats
  int64_t tokens = 0;
};

absl::StatusOr<Outcome> EvaluateExample(EngineClient& engine,
                                        const model::Example& example) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> prompt,
                   engine.Tokenize(example.prompt, /*add_bos=*/true));
  ASSIGN_OR_RETURN(const std::vector<int32_t> completion,
                   engine.Tokenize(example.completion, /*add_bos=*/false));
  v1::ScoreTokensRequest request;
  auto* ids = request.mutable_token_ids();
  ids->Add(prompt.begin(), prompt.end());
  ids->Add(completion.begin(), completion.end());
  ids->Add(kEos);
  request.set_first_scored(static_cast<int32_t>(prompt.size()));
  ASSIGN_OR_RETURN(const v1::ScoreTokensResponse scores, engine.Score(request));
  Outcome outcome;
  outcome.tokens = scores.logprobs_size();
  for (const float log_prob : scores.logprobs()) outcome.log_prob += log_prob;
  ASSIGN_OR_RETURN(
      const Generation generation,
      engine.Generate(prompt,
                      static_cast<int>(completion.size()) + kExtraTokens,
                      /*ignore_eos=*/false));
  outcome.right = generation.finished.reason() == v1::END_OF_SEQUENCE &&
                  generation.token_ids == completion;
  return outcome;
}

// Hands examples out to threads and sums up what they find.
class Task {
 public:
  Task(EngineClient& engine, const std::vector<model::Example>& examples,
       const TaskOptions& options)
      : engine_(engine), examples_(examples), options_(options) {}

  absl::StatusOr<v1::ModelMetrics> Run() {
    const int64_t workers = std::clamp<int64_t>(
        options_.in_flight, 1, static_cast<int64_t>(examples_.size()));
    std::vector<std::thread> threads;
    for (int64_t i = 0; i < workers; ++i) {
      threads.emplace_back([this] { Work(); });
    }
    for (std::thread& thread : threads) thread.join();
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(status_);
    return Metrics();
  }

 private:
  void Work() {
    for (;;) {
      const model::Example* example = Next();
      if (example == nullptr) return;
      const absl::StatusOr<Outcome> outcome =
          EvaluateExample(engine_, *example);
      absl::MutexLock lock(&mutex_);
      const absl::Status status =
          outcome.ok() ? Add(*outcome) : outcome.status();
      if (status_.ok()) status_ = status;
    }
  }

  const model::Example* Next() {
    absl::MutexLock lock(&mutex_);
    if (!status_.ok() || next_ == examples_.size()) return nullptr;
    return &examples_[next_++];
  }

  absl::Status Add(const Outcome& outcome)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    right_ += outcome.right ? 1 : 0;
    log_prob_ += outcome.log_prob;
    tokens_ += outcome.tokens;
    ++done_;
    if (!options_.progress) return absl::OkStatus();
    const v1::ModelMetrics metrics = Metrics();
    return options_.progress("evaluate", done_, examples_.size(), &metrics);
  }

  v1::ModelMetrics Metrics() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    v1::ModelMetrics metrics;
    metrics.set_accuracy(100.0 * right_ / done_);
    metrics.set_perplexity(std::exp(-log_prob_ / tokens_));
    metrics.set_examples(done_);
    metrics.set_completion_tokens(tokens_);
    return metrics;
  }

  EngineClient& engine_;
  const std::vector<model::Example>& examples_;
  const TaskOptions& options_;
  absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t right_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  double log_prob_ ABSL_GUARDED_BY(mutex_) = 0;
};

double Seconds(const google::protobuf::Duration& duration) {
  return 1e-9 *
         static_cast<double>(
             google::protobuf::util::TimeUtil::DurationToNanoseconds(duration));
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2,
                   values.end());
  return values[values.size() / 2];
}

// A prompt of up to kSpeedPromptTokens made of whole examples from `first`
// on, so that no two prompts begin alike.
absl::StatusOr<std::vector<int32_t>> SpeedPrompt(
    EngineClient& engine, const std::vector<model::Example>& examples,
    size_t first, size_t tokens_max) {
  std::vector<int32_t> prompt;
  for (size_t i = 0; i < tokens_max && prompt.size() < tokens_max; ++i) {
    const model::Example& example = examples[(first + i) % examples.size()];
    ASSIGN_OR_RETURN(
        const std::vector<int32_t> ids,
        engine.Tokenize(example.prompt + example.completion, prompt.empty()));
    prompt.insert(prompt.end(), ids.begin(), ids.end());
  }
  if (prompt.size() > tokens_max) prompt.resize(tokens_max);
  return prompt;
}

}  // namespace

absl::StatusOr<v1::ModelMetrics> EvaluateTask(
    EngineClient& engine, const std::vector<model::Example>& examples,
    const TaskOptions& options) {
  if (examples.empty()) {
    return common::MakeError(absl::StatusCode::kInvalidArgument, "EMPTY_SPLIT",
                             "the split has no examples");
  }
  return Task(engine, examples, options).Run();
}

absl::StatusOr<Speeds> MeasureSpeeds(
    EngineClient& engine, const std::vector<model::Example>& examples,
    const EvalProgressFn& progress) {
  ASSIGN_OR_RETURN(const v1::ServerInfo info, engine.Info());
  size_t tokens_max = kSpeedPromptTokens;
  if (info.max_context() > 0) {
    tokens_max = std::clamp<int64_t>(info.max_context() - kSpeedDecodeTokens, 1,
                                     kSpeedPromptTokens);
  }
  std::vector<double> prefill;
  std::vector<double> decode;
  for (int probe = 0; probe < kSpeedProbes; ++probe) {
    ASSIGN_OR_RETURN(
        const std::vector<int32_t> prompt,
        SpeedPrompt(engine, examples, probe * examples.size() / kSpeedProbes,
                    tokens_max));
    ASSIGN_OR_RETURN(
        const Generation generation,
        engine.Generate(prompt, kSpeedDecodeTokens, /*ignore_eos=*/true));
    const v1::Finished& finished = generation.finished;
    const double prefill_seconds = Seconds(finished.prefill_time());
    const double decode_seconds = Seconds(finished.decode_time());
    if (prefill_seconds > 0 && decode_seconds > 0) {
      prefill.push_back(finished.prompt_tokens() / prefill_seconds);
      // The prefill's last row gives the first token.
      decode.push_back((finished.completion_tokens() - 1) / decode_seconds);
    }
    if (progress) {
      RETURN_IF_ERROR(progress("speed", probe + 1, kSpeedProbes, nullptr));
    }
  }
  if (prefill.empty()) {
    return common::MakeError(absl::StatusCode::kInternal, "BAD_RESPONSE",
                             "the server reported no times");
  }
  return Speeds{Median(prefill), Median(decode)};
}

}  // namespace onegrid::evaluator
