// Perplexity of text, and how far a model's predictions on it are from those
// of the float model that it stands for.
#ifndef SERVICES_FINETUNER_TEXT_SCORES_H_
#define SERVICES_FINETUNER_TEXT_SCORES_H_

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/packing.h"

namespace onegrid::finetuner {

// Means over the labelled positions.
struct TextScores {
  int64_t tokens = 0;
  double teacher_nats = 0;  // Nats per token; e^ of it is the perplexity.
  double student_nats = 0;
  double kl = 0;  // Nats per token, KL(teacher || student).

  double excess_nats() const { return student_nats - teacher_nats; }
};

// Called after each sequence with the numbers done and in all; returns false
// to stop.
using ScoreProgress = std::function<bool(int64_t done, int64_t total)>;

// Runs both models over the sequences. They must share the vocabulary.
// Cancelled when `progress` says so. InvalidArgument (EMPTY_TEXT): no label.
absl::StatusOr<TextScores> CompareOnText(
    const GemmaModel& teacher, const GemmaModel& student,
    absl::Span<const PackedSequence> sequences, const ScoreProgress& progress);

// Mean nats per labelled token of one model. Errors as above.
absl::StatusOr<double> MeanNats(const GemmaModel& model,
                                absl::Span<const PackedSequence> sequences,
                                const ScoreProgress& progress);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_TEXT_SCORES_H_
