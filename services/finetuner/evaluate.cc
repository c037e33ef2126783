#include "services/finetuner/evaluate.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace onegrid::finetuner {
namespace {

// Scores of one packed sequence, added to the totals.
struct Totals {
  double negative_logprob = 0;
  int64_t tokens = 0;
  int64_t correct = 0;
};

void ScoreSequence(const GemmaModel& model, const ForwardOptions& options,
                   const PackedSequence& sequence, Totals* totals) {
  const AttentionLayout layout = MakeAttentionLayout(sequence);
  const Labels labels = LabelsOf(sequence);
  const at::Tensor x = model.Forward(sequence, layout, options);
  const HeadScores scores =
      ScoreTargets(model.FinalHidden(x, labels.rows, options.as_served),
                   model.head(), labels.targets);
  size_t next = 0;
  for (int64_t s = 0; s < sequence.segments(); ++s) {
    const int64_t stop = sequence.segment_starts[static_cast<size_t>(s + 1)];
    bool correct = true;
    for (; next < labels.rows.size() && labels.rows[next] < stop; ++next) {
      totals->negative_logprob -= scores.target_logprobs[next];
      ++totals->tokens;
      correct = correct && scores.argmax[next] == labels.targets[next];
    }
    totals->correct += correct;
  }
}

}  // namespace

absl::StatusOr<EvaluationResult> Evaluate(
    const GemmaModel& model, const ForwardOptions& options,
    absl::Span<const TokenizedExample> examples, int64_t sequence_tokens,
    const EvaluateProgress& progress) {
  const c10::NoGradGuard no_grad;
  // Nothing is cut: a longer example gets a sequence of its own.
  int64_t longest = sequence_tokens;
  for (const TokenizedExample& example : examples) {
    longest = std::max(longest, static_cast<int64_t>(example.tokens.size()));
  }
  std::vector<int64_t> order(examples.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  const std::vector<PackedSequence> sequences = Pack(examples, order, longest);
  Totals totals;
  for (size_t i = 0; i < sequences.size(); ++i) {
    ScoreSequence(model, options, sequences[i], &totals);
    if (!progress(static_cast<int64_t>(i + 1),
                  static_cast<int64_t>(sequences.size()))) {
      return absl::CancelledError("tuning was cancelled");
    }
  }
  EvaluationResult result;
  result.examples = static_cast<int64_t>(examples.size());
  result.completion_tokens = totals.tokens;
  result.accuracy = 100.0 * static_cast<double>(totals.correct) /
                    static_cast<double>(std::max<int64_t>(1, result.examples));
  result.perplexity =
      std::exp(totals.negative_logprob /
               static_cast<double>(std::max<int64_t>(1, totals.tokens)));
  return result;
}

}  // namespace onegrid::finetuner
