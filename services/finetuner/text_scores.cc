#include "services/finetuner/text_scores.h"

#include <c10/core/GradMode.h>

#include "services/common/error_info.h"
#include "services/finetuner/attention.h"
#include "services/finetuner/head_kl.h"
#include "services/finetuner/head_loss.h"

namespace onegrid::finetuner {
namespace {

absl::Status NoText() {
  return common::MakeError(absl::StatusCode::kInvalidArgument, "EMPTY_TEXT",
                           "there is no text to measure on");
}

absl::Status Stopped() {
  return absl::CancelledError("the measurement was cancelled");
}

at::Tensor LabelledHidden(const GemmaModel& model,
                          const PackedSequence& sequence,
                          const AttentionLayout& layout, const Labels& labels) {
  return model.FinalHidden(model.Forward(sequence, layout, {}), labels.rows);
}

}  // namespace

absl::StatusOr<TextScores> CompareOnText(
    const GemmaModel& teacher, const GemmaModel& student,
    absl::Span<const PackedSequence> sequences, const ScoreProgress& progress) {
  const c10::NoGradGuard no_grad;
  HeadComparison sums;
  TextScores scores;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const AttentionLayout layout = MakeAttentionLayout(sequences[i]);
    const Labels labels = LabelsOf(sequences[i]);
    if (!labels.rows.empty()) {
      const HeadComparison part =
          CompareHeads({LabelledHidden(teacher, sequences[i], layout, labels),
                        teacher.head().weight, teacher.head().softcap},
                       {LabelledHidden(student, sequences[i], layout, labels),
                        student.head().weight, student.head().softcap},
                       labels.targets);
      sums.kl += part.kl;
      sums.teacher_nats += part.teacher_nats;
      sums.student_nats += part.student_nats;
      scores.tokens += static_cast<int64_t>(labels.rows.size());
    }
    if (!progress(static_cast<int64_t>(i + 1),
                  static_cast<int64_t>(sequences.size()))) {
      return Stopped();
    }
  }
  if (scores.tokens == 0) return NoText();
  const auto tokens = static_cast<double>(scores.tokens);
  scores.kl = sums.kl / tokens;
  scores.teacher_nats = sums.teacher_nats / tokens;
  scores.student_nats = sums.student_nats / tokens;
  return scores;
}

absl::StatusOr<double> MeanNats(const GemmaModel& model,
                                absl::Span<const PackedSequence> sequences,
                                const ScoreProgress& progress) {
  const c10::NoGradGuard no_grad;
  double sum = 0;
  int64_t tokens = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const AttentionLayout layout = MakeAttentionLayout(sequences[i]);
    const Labels labels = LabelsOf(sequences[i]);
    if (!labels.rows.empty()) {
      const HeadScores scores =
          ScoreTargets(LabelledHidden(model, sequences[i], layout, labels),
                       model.head(), labels.targets);
      for (const float logprob : scores.target_logprobs) sum -= logprob;
      tokens += static_cast<int64_t>(labels.rows.size());
    }
    if (!progress(static_cast<int64_t>(i + 1),
                  static_cast<int64_t>(sequences.size()))) {
      return Stopped();
    }
  }
  if (tokens == 0) return NoText();
  return sum / static_cast<double>(tokens);
}

}  // namespace onegrid::finetuner
