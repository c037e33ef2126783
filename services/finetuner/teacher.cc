#include "services/finetuner/teacher.h"

#include <c10/core/GradMode.h>

#include <cstring>
#include <utility>

namespace onegrid::finetuner {
namespace {

class ModelTeacher : public Teacher {
 public:
  ModelTeacher(const GemmaModel& model, const LoraAdapter* adapter)
      : model_(model) {
    options_.adapter = adapter;
  }

  HeadTeacher Judge(const PackedSequence& sequence,
                    const AttentionLayout& layout,
                    const Labels& labels) override {
    const c10::NoGradGuard no_grad;
    HeadTeacher result;
    result.hidden = model_.FinalHidden(
        model_.Forward(sequence, layout, options_), labels.rows);
    result.head = &model_.head();
    return result;
  }

 private:
  const GemmaModel& model_;
  ForwardOptions options_;
};

class CachedTeacher : public Teacher {
 public:
  explicit CachedTeacher(std::vector<TopLogprobs> examples)
      : examples_(std::move(examples)) {}

  HeadTeacher Judge(const PackedSequence& sequence, const AttentionLayout&,
                    const Labels&) override {
    std::vector<at::Tensor> ids, logprobs;
    for (const int64_t example : sequence.examples) {
      const TopLogprobs& top = examples_[static_cast<size_t>(example)];
      ids.push_back(top.ids);
      logprobs.push_back(top.logprobs);
    }
    HeadTeacher result;
    result.top = {at::cat(ids, 0), at::cat(logprobs, 0)};
    return result;
  }

 private:
  std::vector<TopLogprobs> examples_;
};

// Splits the rows of a sequence's labels by segment.
void KeepByExample(const PackedSequence& sequence, const Labels& labels,
                   const TopLogprobs& top, std::vector<TopLogprobs>* examples) {
  size_t next = 0;
  for (int64_t s = 0; s < sequence.segments(); ++s) {
    const int64_t stop = sequence.segment_starts[static_cast<size_t>(s + 1)];
    const size_t begin = next;
    while (next < labels.rows.size() && labels.rows[next] < stop) ++next;
    const auto count = static_cast<int64_t>(next - begin);
    const auto at = static_cast<int64_t>(begin);
    (*examples)[static_cast<size_t>(
        sequence.examples[static_cast<size_t>(s)])] = {
        top.ids.narrow(0, at, count).clone(),
        top.logprobs.narrow(0, at, count).clone()};
  }
}

}  // namespace

std::unique_ptr<Teacher> MakeModelTeacher(const GemmaModel& model,
                                          const LoraAdapter* adapter) {
  return std::make_unique<ModelTeacher>(model, adapter);
}

absl::StatusOr<std::unique_ptr<Teacher>> MakeCachedTeacher(
    const GemmaModel& model, const LoraAdapter* adapter,
    absl::Span<const TokenizedExample> examples, int64_t sequence_tokens,
    int64_t top,
    const std::function<bool(int64_t done, int64_t total)>& progress) {
  const c10::NoGradGuard no_grad;
  std::vector<int64_t> order(examples.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  const std::vector<PackedSequence> sequences =
      Pack(examples, order, sequence_tokens);
  std::vector<TopLogprobs> kept(examples.size());
  ModelTeacher teacher(model, adapter);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const PackedSequence& sequence = sequences[i];
    const Labels labels = LabelsOf(sequence);
    if (!labels.rows.empty()) {
      const AttentionLayout layout = MakeAttentionLayout(sequence);
      const HeadTeacher said = teacher.Judge(sequence, layout, labels);
      KeepByExample(sequence, labels, ScoreTop(said.hidden, *said.head, top),
                    &kept);
    }
    if (!progress(static_cast<int64_t>(i + 1),
                  static_cast<int64_t>(sequences.size()))) {
      return absl::CancelledError("tuning was cancelled");
    }
  }
  return std::make_unique<CachedTeacher>(std::move(kept));
}

}  // namespace onegrid::finetuner
