// Adds the adapters' part to the outputs of a step's linears.
#ifndef SERVICES_INFERENCE_LORA_RUNNER_H_
#define SERVICES_INFERENCE_LORA_RUNNER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "services/inference/lora.h"

namespace onegrid::inference {

// Rows of different sequences with the same adapter are computed together, and
// each row's result depends only on that row. Takes memory when first needed.
// Thread-compatible.
class LoraRunner {
 public:
  LoraRunner(kernels::Isa isa, kernels::ThreadPool& pool)
      : isa_(isa), pool_(pool) {}

  // Of each row of the step its adapter; null: it has none. The adapters must
  // stay until the next SetRows.
  void SetRows(absl::Span<const LoraAdapter* const> rows);

  // Whether any row has an adapter.
  bool active() const { return !groups_.empty(); }

  // out [rows, n] += scale * B (A x) where the row's adapter has the layer's
  // linear. x: [rows, k].
  void AddTo(int layer, LoraTarget target, const float* x, int64_t k, int64_t n,
             float* out);

 private:
  struct Group {
    const LoraAdapter* adapter;
    std::vector<int64_t> rows;
  };

  void Add(const LoraPair& pair, const std::vector<int64_t>& rows,
           const float* x, int64_t k, int64_t n, float* out);

  const kernels::Isa isa_;
  kernels::ThreadPool& pool_;
  std::vector<Group> groups_;
  // Of one group's m rows, grown as needed.
  std::vector<float> inputs_;  // [m, k]
  std::vector<float> parts_;   // [m, 2 * rank]
  std::vector<float> deltas_;  // [m, n]
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_LORA_RUNNER_H_
