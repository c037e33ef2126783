// One generation: sampling, stopping, and a queue of events for its reader.
#ifndef SERVICES_INFERENCE_GENERATE_TASK_H_
#define SERVICES_INFERENCE_GENERATE_TASK_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/cpu/top_products.h"
#include "services/inference/call_context.h"
#include "services/inference/grammar/output_grammar.h"
#include "services/inference/lora.h"
#include "services/inference/sampler.h"
#include "services/inference/task.h"
#include "services/inference/text_stream.h"
#include "services/model/tokenizer.h"

namespace onegrid::inference {

struct GenerateOptions {
  std::vector<int32_t> prompt;  // at least one token
  SamplerOptions sampler;
  int max_tokens = 128;
  int max_context = 0;  // prompt and output together
  std::vector<std::string> stop_strings;
  std::set<int32_t> stop_tokens;
  bool ignore_eos = false;
  bool logprobs = false;
  int top_logprobs = 0;  // 0..kMaxTopLogprobs, at most the vocabulary
  std::shared_ptr<const LoraAdapter> adapter;  // null: the model as it is
  TaskPlace place;
  // What the output has to be; null: anything.
  std::shared_ptr<const grammar::OutputGrammar> structure;
};

inline constexpr int kMaxTopLogprobs = 20;

enum class EndReason {
  kEndOfSequence,
  kStopString,
  kStopToken,
  kMaxTokens,
  kContextFull,
};

struct GenerationStarted {
  int prompt_tokens;
  int cached_tokens;  // those of them whose keys and values were kept
};

// End-of-sequence and stop tokens are not part of any delta.
struct GenerationDelta {
  std::string text;
  std::vector<int32_t> tokens;
  // Natural log-probabilities under the model's own distribution, before
  // penalty, temperature and filters. Empty unless asked for.
  std::vector<float> logprobs;
  // Of the same distribution, the most likely tokens in the place of each
  // token, GenerateOptions::top_logprobs of them, most likely first.
  std::vector<int32_t> top_ids = {};
  std::vector<float> top_logprobs = {};
};

struct GenerationFinished {
  EndReason reason;
  std::string stop_string;
  int32_t stop_token = 0;
  int prompt_tokens = 0;
  int completion_tokens = 0;
  absl::Duration queue_time;
  absl::Duration prefill_time;  // until the first token was chosen
  absl::Duration decode_time;
  int preemptions = 0;
};

// The last event is GenerationFinished or a Status that is not OK.
using GenerationEvent = std::variant<GenerationStarted, GenerationDelta,
                                     GenerationFinished, absl::Status>;

// Thread-safe as a Task; NextEvent is for one reader. Events wait in memory
// until read: at most max_tokens + 2 of them.
class GenerateTask : public Task {
 public:
  // `tokenizer` must outlive the task.
  GenerateTask(GenerateOptions options, CallContext context,
               const model::Tokenizer& tokenizer);

  // Blocks until there is an event.
  GenerationEvent NextEvent();

  absl::Span<const int32_t> tokens() const override { return tokens_; }
  int most_tokens() const override;
  const TaskPlace& place() const override { return options_.place; }
  int first_output() const override {
    return static_cast<int>(tokens_.size()) - 1;
  }
  const LoraAdapter* adapter() const override { return options_.adapter.get(); }
  absl::Status Interrupted() const override { return CheckCall(context_); }
  std::vector<int32_t> Draft(int most) const override;
  void OnStart(int restored) override;
  void OnPreempted() override { ++finished_.preemptions; }
  void OnLogits(int index, absl::Span<float> logits) override;
  int top_logits() const override;
  void OnTopLogits(int index, absl::Span<const cpu::TopProduct> best) override;
  bool OnStepDone() override { return ended_; }
  void OnEnd(const absl::Status& status) override;

 private:
  void Push(GenerationEvent event);
  // Adds a chosen token to the output with what `delta` says of it, or ends it.
  void Take(int32_t token, GenerationDelta delta);
  // Whether `token` ends the output instead of joining it.
  bool IsEndToken(int32_t token);
  // Whether an output that has to have a structure is complete.
  bool IsStructureComplete();
  // Ends the output with an error.
  void Fail(absl::Status status);

  const GenerateOptions options_;
  const CallContext context_;
  const model::Tokenizer& tokenizer_;

  // The scheduler's.
  std::vector<int32_t> tokens_;  // prompt, then output
  Sampler sampler_;
  TextStream text_;
  std::unique_ptr<grammar::OutputMatcher> structure_;  // null: anything goes
  bool ended_ = false;
  absl::Status failure_;
  GenerationFinished finished_;
  absl::Time created_;
  absl::Time started_;
  absl::Time first_token_;

  absl::Mutex mu_;
  std::deque<GenerationEvent> events_ ABSL_GUARDED_BY(mu_);
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_GENERATE_TASK_H_
