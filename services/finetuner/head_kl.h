// Divergence of one model's predictions from another's, over the whole
// vocabulary.
#ifndef SERVICES_FINETUNER_HEAD_KL_H_
#define SERVICES_FINETUNER_HEAD_KL_H_

#include <ATen/ATen.h>

#include <cstdint>

#include "absl/types/span.h"

namespace onegrid::finetuner {

// Final hidden states [P, its width] float32 and the output head [vocab, its
// width] float32 of one model; softcap as in Head.
struct HeadInput {
  at::Tensor hidden;
  at::Tensor head;
  double softcap = 0;
};

// Sums over positions, in nats.
struct HeadComparison {
  double kl = 0;            // KL(teacher || student)
  double teacher_nats = 0;  // -log p[target]; 0 without targets.
  double student_nats = 0;
};

// Both models must have P positions and one vocabulary; targets [P] or empty.
// Logits are float32 and held for a chunk of positions, sums float64. A KL is
// exact to about 1e-6 nats a position.
HeadComparison CompareHeads(const HeadInput& teacher, const HeadInput& student,
                            absl::Span<const int32_t> targets);

// Mean over positions of KL(teacher || student), P >= 1.
double MeanKl(const HeadInput& teacher, const HeadInput& student);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_HEAD_KL_H_
