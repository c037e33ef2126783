// The mixture of experts beside a layer's MLP (Gemma 4 26B-A4B).
#ifndef SERVICES_INFERENCE_EXPERTS_H_
#define SERVICES_INFERENCE_EXPERTS_H_

#include <cstdint>
#include <vector>

#include "kernels/base/aligned_buffer.h"
#include "kernels/base/thread_pool.h"
#include "services/inference/gemma_weights.h"
#include "services/inference/linear_input.h"
#include "services/inference/numerics.h"
#include "services/model/gemma_config.h"

namespace onegrid::inference {

// Each row's result depends only on that row. Thread-compatible.
class Experts {
 public:
  // Work space for steps of at most `max_rows`. `pool` must outlive this.
  Experts(const model::GemmaConfig& config, const Numerics& numerics,
          int64_t max_rows, kernels::ThreadPool& pool);

  // branch [rows, hidden] += the norm of the weighted sum of each row's
  // experts. x [rows, hidden]: the residual stream, which the router reads.
  void AddTo(const ExpertWeights& weights, const float* x, int64_t rows,
             float* branch);

 private:
  // Of the rows of x: their choices, by expert.
  void Route(const ExpertWeights& weights, const float* x, int64_t rows);
  // Adds one expert's part of its rows to sum_.
  void Run(const ExpertWeights& weights, int64_t expert);

  struct Use {
    int64_t row;
    float weight;
  };

  const model::GemmaConfig& config_;
  const Numerics numerics_;
  kernels::ThreadPool& pool_;
  LinearInput input_;
  std::vector<std::vector<Use>> uses_;     // by expert
  kernels::AlignedBuffer<float> normed_;   // [rows, hidden]
  kernels::AlignedBuffer<float> rows_;     // [rows, hidden], one expert's
  kernels::AlignedBuffer<float> gate_up_;  // [rows, 2 * expert_ff]
  kernels::AlignedBuffer<float> active_;   // [rows, expert_ff]
  kernels::AlignedBuffer<float> out_;      // [rows, hidden]
  kernels::AlignedBuffer<float> sum_;      // [rows, hidden]
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_EXPERTS_H_
