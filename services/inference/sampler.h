// Chooses the next token from one row of logits.
#ifndef SERVICES_INFERENCE_SAMPLER_H_
#define SERVICES_INFERENCE_SAMPLER_H_

#include <cstdint>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace onegrid::inference {

struct SamplerOptions {
  float temperature = 0;         // 0..10; 0 takes the most likely token
  int top_k = 0;                 // >= 0; 0 keeps all
  float top_p = 1;               // 0 < p <= 1
  float min_p = 0;               // 0..1, relative to the most likely token
  float repetition_penalty = 1;  // > 0, <= 10; 1 is off
  uint64_t seed = 0;
};

// InvalidArgument naming the field that is out of range or not a number.
absl::Status ValidateSampler(const SamplerOptions& options);

// Order: repetition penalty, temperature, top-k, top-p, min-p, then one draw;
// the order of Hugging Face transformers. Ties go to the lower token id.
// Same options and same logits give the same tokens on every machine.
// Thread-compatible.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);

  // Marks a token as seen, for the repetition penalty.
  void Observe(int32_t token);

  // logits: [vocabulary], changed in place by the penalty. Every value must
  // be finite, or minus infinity for a token that is not to be chosen; at least
  // one is finite.
  int32_t Sample(absl::Span<float> logits);

 private:
  void ApplyPenalty(absl::Span<float> logits) const;
  int32_t DrawFromAll(absl::Span<const float> logits, float max_logit);
  int32_t DrawFromFiltered(absl::Span<const float> logits, float max_logit);
  double Uniform();

  SamplerOptions options_;
  std::mt19937_64 random_;
  std::vector<bool> seen_;  // grown to the largest token seen
  std::vector<int32_t> seen_tokens_;
};

// Index of the largest value, the first of equals. logits must not be empty.
int32_t ArgMax(absl::Span<const float> logits);

// log(sum(exp(logits))), accumulated in double.
double LogSumExp(absl::Span<const float> logits);

// The `n` largest, largest first, ties by lower id. n <= logits.size().
// Expected O(vocabulary + n log n).
std::vector<int32_t> TopN(absl::Span<const float> logits, int n);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_SAMPLER_H_
