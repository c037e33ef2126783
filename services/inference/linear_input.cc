#include "services/inference/linear_input.h"

#include <vector>

#include "absl/types/span.h"
#include "kernels/base/check.h"
#include "kernels/cpu/gated_linear.h"

namespace onegrid::inference {

void LinearInput::Set(const float* x, int64_t m, int64_t k,
                      cpu::CodeBits bits) {
  x_ = x;
  m_ = m;
  k_ = k;
  bits_ = bits;
  is_quantized_ = false;
}

const cpu::QuantizedActivations& LinearInput::Quantized() {
  if (!is_quantized_) {
    cpu::QuantizeActivations(absl::MakeConstSpan(x_, m_ * k_), m_, k_, bits_,
                             &quantized_, pool_, numerics_.isa);
    is_quantized_ = true;
  }
  return quantized_;
}

bool LinearInput::SetNormed(
    const cpu::NormStep& step, int64_t m, int64_t k, cpu::CodeBits bits,
    std::initializer_list<const cpu::PackedLinear*> of) {
  for (const cpu::PackedLinear* weights : of) {
    if (weights != nullptr && !TakesCodes(*weights)) return false;
  }
  Set(nullptr, m, k, bits);
  cpu::QuantizeNormedRows(step, m, k, bits, &quantized_, pool_, numerics_.isa);
  is_quantized_ = true;
  return true;
}

void LinearInput::SetGated(const cpu::PackedLinear& gate,
                           const cpu::PackedLinear& up, LinearInput& from) {
  KERNELS_CHECK(TakesCodes(gate) && TakesCodes(up));
  Set(nullptr, from.m_, gate.n(), from.bits_);
  cpu::GatedLinear(from.Quantized(), gate, up, &quantized_, pool_,
                   numerics_.isa);
  is_quantized_ = true;
}

void LinearInput::Multiply(absl::Span<const cpu::LinearProduct> products) {
  std::vector<cpu::LinearProduct> of_codes;
  for (const cpu::LinearProduct& product : products) {
    if (TakesCodes(*product.weights)) {
      of_codes.push_back(product);
      continue;
    }
    KERNELS_CHECK(x_ != nullptr);
    cpu::LinearF32(x_, m_, *product.weights, product.out, pool_, numerics_.isa);
  }
  if (of_codes.empty()) return;
  cpu::Linear(Quantized(), of_codes, pool_, numerics_.isa);
}

}  // namespace onegrid::inference
