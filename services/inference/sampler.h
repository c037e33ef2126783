// Chooses the next token from one row of logits.
#ifndef SERVICES_INFERENCE_SAMPLER_H_
#define SERVICES_INFERENCE_SAMPLER_H_

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/cpu/top_products.h"

namespace onegrid::inference {

struct SamplerOptions {
  float temperature = 0;         // 0..10; 0 takes the most likely token
  int top_k = 0;                 // >= 0; 0 keeps all
  float top_p = 1;               // 0 < p <= 1
  float min_p = 0;               // 0..1, relative to the most likely token
  float repetition_penalty = 1;  // > 0, <= 10; 1 is off
  float presence_penalty = 0;    // -2..2
  float frequency_penalty = 0;   // -2..2
  // Tokens of the vocabulary, each once, and what is added: -100..100. At most
  // kMaxLogitBias.
  std::vector<std::pair<int32_t, float>> logit_bias;
  uint64_t seed = 0;
};

inline constexpr int kMaxLogitBias = 1024;

// InvalidArgument naming the field that is out of range or not a number, what
// was expected and what was found.
absl::Status ValidateSampler(const SamplerOptions& options, int64_t vocab_size);

// In the order that vLLM documents (vllm/v1/sample/sampler.py, 0.22):
//   1. bias           logit += logit_bias
//   2. repetition     of tokens of prompt and output: logit / p if above 0,
//                     else logit * p
//   3. frequency      of tokens of the output: logit -= p * times there
//   4. presence       of tokens of the output: logit -= p
//   5. greedy         temperature 0 takes the most likely token; else
//   6. temperature    logit / temperature
//   7. min-p          keeps p >= min_p * that of the most likely token
//   8. top-k, top-p   top-p's mass is a share of what was kept so far
//   9. one draw       from what is kept
// Ties go to the lower token id. A logit of minus infinity stays so. Same
// options and same logits give the same tokens on every machine, whatever else
// runs. Costs nothing for what is off, and for 1 to 4 nothing that grows with
// the vocabulary. Thread-compatible.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);

  // Marks a token of the prompt, or of the output, as seen.
  void ObservePrompt(int32_t token);
  void ObserveOutput(int32_t token);

  // Whether Sample changes logits.
  bool changes_logits() const;

  // logits: [vocabulary], changed in place by bias and penalties. Every value
  // must be finite, or minus infinity for a token that is not to be chosen; at
  // least one is finite.
  int32_t Sample(absl::Span<float> logits);

  // How many of the largest logits are all that Sample looks at; 0: it looks at
  // all of them. Constant.
  int top_logits() const;

  // What Sample chooses if the largest logits of a row are these, largest
  // first, ties by lower token. As many as top_logits() says, which is not 0,
  // or all there are; at least one.
  int32_t SampleTop(absl::Span<const cpu::TopProduct> best);

 private:
  // The first `count` of some logits, and the sum of their weights.
  struct Kept {
    size_t count;
    double mass;
  };

  void ApplyBiasAndPenalties(absl::Span<float> logits) const;
  int32_t DrawFromAll(absl::Span<const float> logits);
  int32_t DrawFromFiltered(absl::Span<const float> logits);
  int32_t DrawFromTop(absl::Span<const cpu::TopProduct> best);
  // Relative to the most likely token, which has 1.
  double Weight(float logit, float max_logit) const;
  // What of `best` is kept if the weights that top_p is a share of are `total`.
  Kept Keep(absl::Span<const cpu::TopProduct> best, double total) const;
  int32_t Draw(absl::Span<const cpu::TopProduct> best, const Kept& kept);
  double Uniform();

  SamplerOptions options_;
  std::mt19937_64 random_;
  // For the repetition penalty, without doubles.
  std::vector<bool> seen_;  // grown to the largest token seen
  std::vector<int32_t> seen_tokens_;
  // How often each token is in the output, for the two other penalties.
  absl::flat_hash_map<int32_t, int> output_counts_;
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
