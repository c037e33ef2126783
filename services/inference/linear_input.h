// The input of one or more linears, in the precision the engine computes in.
#ifndef SERVICES_INFERENCE_LINEAR_INPUT_H_
#define SERVICES_INFERENCE_LINEAR_INPUT_H_

#include <cstdint>

#include "kernels/base/aligned_buffer.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/quantized_activations.h"
#include "services/inference/numerics.h"

namespace onegrid::inference {

// Quantizes once what several linears (q, k, v; gate, up) read.
// Thread-compatible.
class LinearInput {
 public:
  // `pool` must outlive this object.
  LinearInput(const Numerics& numerics, kernels::ThreadPool& pool)
      : numerics_(numerics), pool_(pool) {}

  // x: [m, k], must stay unchanged until the last Multiply. With kTwoTerms the
  // int8 mode quantizes what the first quantization left over once more, so
  // that x is the sum of two int8 terms: about 15 bits for twice the work.
  // Weights without codes (bf16) are multiplied by x itself in each mode.
  enum Terms { kOneTerm, kTwoTerms };
  void Set(const float* x, int64_t m, int64_t k, Terms terms);

  // out: [m, n] = x * w^T, w [n, k].
  void Multiply(const cpu::PackedLinear& w, float* out);

 private:
  // Makes quantized_ of x_.
  void Quantize();
  // Writes x_ and below it what quantized_ (of x_) leaves of it to stacked_.
  void StackRest();

  const Numerics numerics_;
  kernels::ThreadPool& pool_;
  const float* x_ = nullptr;
  int64_t m_ = 0;
  int64_t k_ = 0;
  bool is_quantized_ = false;
  Terms terms_ = kOneTerm;
  cpu::QuantizedActivations quantized_;     // of x, or of stacked_
  kernels::AlignedBuffer<float> stacked_;   // [2 m, k]
  kernels::AlignedBuffer<float> products_;  // [2 m, n]
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_LINEAR_INPUT_H_
