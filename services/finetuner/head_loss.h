// Cross-entropy through the tied output head, over labelled positions only.
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

namespace onegrid::finetuner {

// Positions whose logits are held at once.
inline constexpr int64_t kHeadChunk = 64;

// The output head, [vocab, hidden].
struct Head {
  at::Tensor weight;          // float32: logits are exact in either precision.
  at::Tensor compute_weight;  // Compute type, for the gradient product.
};

// Sum over positions of -log softmax(head hidden)[target]: a float64 scalar.
// hidden [P, hidden] float32, P >= 1; targets [P].
at::Tensor HeadLossSum(const at::Tensor& hidden, const Head& head,
                       absl::Span<const int32_t> targets,
                       int64_t chunk = kHeadChunk);

// What teacher forcing says about each position.
struct HeadScores {
  std::vector<float> target_logprobs;
  std::vector<int32_t> argmax;
};
HeadScores ScoreTargets(const at::Tensor& hidden, const at::Tensor& weight,
                        absl::Span<const int32_t> targets);

// The k most likely tokens of each position, most likely first: ids [P, k]
// int32 and their natural log-probabilities [P, k] float32.
struct TopLogprobs {
  at::Tensor ids;
  at::Tensor logprobs;
};
TopLogprobs ScoreTop(const at::Tensor& hidden, const at::Tensor& weight,
                     int64_t k);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_HEAD_LOSS_H_
