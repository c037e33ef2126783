// Equivalence level 2: the trainer's probe logits against a running engine.
#ifndef SERVICES_EVALUATOR_EQUIVALENCE_EVAL_H_
#define SERVICES_EVALUATOR_EQUIVALENCE_EVAL_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/onegrid/v1/export.pb.h"
#include "services/evaluator/engine_client.h"
#include "services/evaluator/probe_file.h"
#include "services/evaluator/task_eval.h"

namespace onegrid::evaluator {

// KL(p || q) in nats, where p and q are given by the log-probabilities of the
// same tokens; what is left of each to 1 is one more outcome. That remainder
// is taken as at least 1e-7, the precision of a sum of f32 probabilities.
double KlWithRest(absl::Span<const float> p, absl::Span<const float> q);

// Scores every probe token with `engine` and compares. `stage` names the
// progress. Errors: those of EngineClient::Score and of `progress`.
absl::StatusOr<v1::LogitAgreement> CompareLogits(
    EngineClient& engine, const ProbeFile& probe, absl::string_view stage,
    const EvalProgressFn& progress);

// Bounds on the agreements; top1 as a share, 0..1.
struct AgreementBounds {
  double kl_float = 0;
  double top1_float = 0;
  double kl_served = 0;
  double top1_served = 0;
  double kl_served_arithmetic = 0;
};

// PASSED if the agreements in `report` are within their bounds; that of the
// served arithmetic may be missing.
v1::EquivalenceReport::Verdict Judge(const v1::EquivalenceReport& report,
                                     const AgreementBounds& bounds);

}  // namespace onegrid::evaluator

#endif  // SERVICES_EVALUATOR_EQUIVALENCE_EVAL_H_
