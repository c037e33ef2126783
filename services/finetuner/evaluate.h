// The trainer's own evaluation: teacher forcing over a split.
#ifndef SERVICES_FINETUNER_EVALUATE_H_
#define SERVICES_FINETUNER_EVALUATE_H_

#include <functional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/packing.h"
#include "services/finetuner/tuning_options.h"

namespace onegrid::finetuner {

// Called after each packed sequence; returns false to stop.
using EvaluateProgress = std::function<bool(int64_t done, int64_t total)>;

// Teacher-forced scores of `examples`. An example counts as correct when the
// most likely token is the reference at every label, end of turn included:
// exactly when greedy decoding would reproduce the completion.
// Cancelled when `progress` says so.
absl::StatusOr<EvaluationResult> Evaluate(
    const GemmaModel& model, const ForwardOptions& options,
    absl::Span<const TokenizedExample> examples, int64_t sequence_tokens,
    const EvaluateProgress& progress);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_EVALUATE_H_
