#include "services/inference/linear_input.h"

#include "absl/types/span.h"

namespace onegrid::inference {

void LinearInput::Set(const float* x, int64_t m, int64_t k,
                      cpu::CodeBits bits) {
  x_ = x;
  m_ = m;
  k_ = k;
  bits_ = bits;
  is_quantized_ = false;
}

void LinearInput::Multiply(const cpu::PackedLinear& w, float* out) {
  if (numerics_.activations == Precision::kF32 || !w.has_codes()) {
    cpu::LinearF32(x_, m_, w, out, pool_, numerics_.isa);
    return;
  }
  if (!is_quantized_) {
    cpu::QuantizeActivations(absl::MakeConstSpan(x_, m_ * k_), m_, k_, bits_,
                             &quantized_, pool_, numerics_.isa);
    is_quantized_ = true;
  }
  cpu::Linear(quantized_, w, out, pool_, numerics_.isa);
}

}  // namespace onegrid::inference
