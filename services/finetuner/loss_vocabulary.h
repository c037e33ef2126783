// A part of a vocabulary that losses are taken over, so that the output head
// costs what that part costs.
//
// A Gemma head has 262,144 rows: where every token is a label, it and the
// teacher's take more than half of a training step, nearly all of it for tokens
// that neither the text nor the teacher would ever write. Both distributions
// are then renormalised over the part. Scores of the validation split stay over
// the whole vocabulary.
#ifndef SERVICES_FINETUNER_LOSS_VOCABULARY_H_
#define SERVICES_FINETUNER_LOSS_VOCABULARY_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/head_loss.h"
#include "services/finetuner/packing.h"

namespace onegrid::finetuner {

class LossVocabulary {
 public:
  // The tokens `ids`, ascending int64, of the embeddings [vocab, width]
  // float32, as heads that compute in `compute_type` and have one soft cap.
  LossVocabulary(const at::Tensor& ids, const at::Tensor& student,
                 const at::Tensor& teacher, at::ScalarType compute_type,
                 double softcap = 0);

  int64_t size() const { return student_.weight.size(0); }
  // Rows of these tokens.
  const Head& student() const { return student_; }
  const Head& teacher() const { return teacher_; }
  // Positions of the targets among the tokens; each must be one of them.
  std::vector<int32_t> Local(absl::Span<const int32_t> targets) const;

 private:
  Head student_;
  Head teacher_;
  std::vector<int32_t> local_;  // By token; -1: not among them.
};

// Every label of `examples`, and the `top` tokens that the teacher finds most
// likely at each of up to `sample_labels` labels of examples drawn with `seed`.
// Cancelled when `progress`, called after each example, returns false.
absl::StatusOr<LossVocabulary> ChooseLossVocabulary(
    const GemmaModel& teacher, const at::Tensor& student_embedding,
    absl::Span<const TokenizedExample> examples, int64_t top,
    int64_t sample_labels, uint64_t seed,
    const std::function<bool(int64_t done, int64_t total)>& progress);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_LOSS_VOCABULARY_H_
