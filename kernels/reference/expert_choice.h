#ifndef KERNELS_REFERENCE_EXPERT_CHOICE_H_
#define KERNELS_REFERENCE_EXPERT_CHOICE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

// Which experts a token goes to (Gemma 4; transformers modeling_gemma4.py,
// Gemma4TextRouter): served as it is, and what a trainer sees. The same bits on
// every machine: sums run in 16 interleaved parts and e^x is ServedExp. Any
// threads may call these at once.
namespace onegrid::reference {

// One expert of a token, and its share in the sum.
struct ExpertChoice {
  int64_t expert;
  float weight;
};

// What a token is normed with before RouterLogits: scale [hidden] /
// sqrt(hidden).
std::vector<float> RouterNorm(absl::Span<const float> scale);

// The products of a token [hidden] with each row of router [experts, hidden].
std::vector<float> RouterLogits(absl::Span<const float> token,
                                absl::Span<const float> router);

// The `used` experts with the largest logits, in the order of their numbers:
// the softmax over all logits, divided by its sum over these, times the
// experts' scales. Of equal logits the lower number goes first.
// 1 <= used <= logits.size() == scales.size().
std::vector<ExpertChoice> ChooseExperts(absl::Span<const float> logits,
                                        int64_t used,
                                        absl::Span<const float> scales);

}  // namespace onegrid::reference

#endif  // KERNELS_REFERENCE_EXPERT_CHOICE_H_
