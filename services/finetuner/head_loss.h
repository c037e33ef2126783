// Cross-entropy, and divergence from a teacher, through the output head,
// over labelled positions only.
//
// The logits of a Gemma vocabulary take a megabyte per position, so positions
// go through in chunks, and since the head is frozen the gradient with respect
// to the hidden states is finished in the forward pass: nothing of a chunk's
// logits outlives it.
#ifndef SERVICES_FINETUNER_HEAD_LOSS_H_
#define SERVICES_FINETUNER_HEAD_LOSS_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "services/finetuner/tunable.h"

namespace onegrid::finetuner {

// Positions whose logits are held at once.
inline constexpr int64_t kHeadChunk = 64;

// The output head, [vocab, hidden].
struct Head {
  at::Tensor weight;          // float32: logits are exact in either precision.
  at::Tensor compute_weight;  // Compute type, for the gradient product.
  double softcap = 0;  // Logits are softcap * tanh(logit / softcap); 0: plain.
};

// Logits [P, vocab] float32 of rows `weight` of a head at hidden [P, hidden].
at::Tensor LogitsOf(const at::Tensor& hidden, const at::Tensor& weight,
                    double softcap);

// The k most likely tokens of each position, most likely first: ids [P, k]
// int32 and their natural log-probabilities [P, k] float32.
struct TopLogprobs {
  at::Tensor ids;
  at::Tensor logprobs;
};

// What a teacher says about the same positions: either its final hidden states
// [P, its hidden] float32 and its head, of the same vocabulary, or its most
// likely tokens only, the rest of the probability then counting as one token.
struct HeadTeacher {
  at::Tensor hidden;
  const Head* head = nullptr;
  TopLogprobs top;
};

// loss = cross_entropy * -log p[target] + kl * KL(teacher || p).
struct LossWeights {
  double cross_entropy = 1;
  double kl = 0;
};

// The weighted sum over positions of the loss of p = softmax(head hidden): a
// float64 scalar, differentiable in `hidden`; the unweighted sums are added to
// `sums`. hidden [P, hidden] float32, P >= 1; targets [P]. `teacher` may be
// nullptr if weights.kl is 0.
at::Tensor HeadLoss(const at::Tensor& hidden, const Head& head,
                    absl::Span<const int32_t> targets,
                    const LossWeights& weights, const HeadTeacher* teacher,
                    LossSums* sums, int64_t chunk = kHeadChunk);

// The cross-entropy alone.
at::Tensor HeadLossSum(const at::Tensor& hidden, const Head& head,
                       absl::Span<const int32_t> targets,
                       int64_t chunk = kHeadChunk);

// What teacher forcing says about each position.
struct HeadScores {
  std::vector<float> target_logprobs;
  std::vector<int32_t> argmax;
};
HeadScores ScoreTargets(const at::Tensor& hidden, const Head& head,
                        absl::Span<const int32_t> targets);

// Of logits [P, vocab] float32; 1 <= k <= vocab.
TopLogprobs TopOfLogits(const at::Tensor& logits, int64_t k);
// Of the head at hidden [P, hidden].
TopLogprobs ScoreTop(const at::Tensor& hidden, const Head& head, int64_t k);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_HEAD_LOSS_H_
