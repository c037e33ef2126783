// The input of one or more linears, in the precision the engine computes in.
#ifndef SERVICES_INFERENCE_LINEAR_INPUT_H_
#define SERVICES_INFERENCE_LINEAR_INPUT_H_

#include <cstdint>
#include <initializer_list>

#include "absl/types/span.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/norm_step.h"
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

  // x: [m, k], must stay unchanged until the last Multiply. bits: of its codes
  // in int8 mode. Weights without codes (bf16) are multiplied by x itself in
  // each mode.
  void Set(const float* x, int64_t m, int64_t k, cpu::CodeBits bits);

  // Makes this the rows of `step`, never as floats: for weights `of` that have
  // codes, or are null. False, and nothing is done, if some have none, or
  // activations are not in int8 mode.
  bool SetNormed(const cpu::NormStep& step, int64_t m, int64_t k,
                 cpu::CodeBits bits,
                 std::initializer_list<const cpu::PackedLinear*> of);

  // Makes this gelu_tanh(x * gate^T) * (x * up^T), x that of `from`, with as
  // many bits: in int8 mode, gate and up have codes.
  void SetGated(const cpu::PackedLinear& gate, const cpu::PackedLinear& up,
                LinearInput& from);

  // out: [m, n] = x * w^T, w [n, k].
  void Multiply(const cpu::PackedLinear& w, float* out) {
    Multiply({{&w, out}});
  }
  // The same for each of some weights.
  void Multiply(absl::Span<const cpu::LinearProduct> products);

 private:
  // Whether products with w take codes.
  bool TakesCodes(const cpu::PackedLinear& w) const {
    return numerics_.activations != Precision::kF32 && w.has_codes();
  }
  // x_ in codes.
  const cpu::QuantizedActivations& Quantized();

  const Numerics numerics_;
  kernels::ThreadPool& pool_;
  const float* x_ = nullptr;  // null if it is in codes only
  int64_t m_ = 0;
  int64_t k_ = 0;
  cpu::CodeBits bits_ = cpu::CodeBits::k8;
  bool is_quantized_ = false;
  cpu::QuantizedActivations quantized_;  // of x, if is_quantized_
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_LINEAR_INPUT_H_
