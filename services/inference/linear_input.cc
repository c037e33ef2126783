#include "services/inference/linear_input.h"

#include "absl/types/span.h"

namespace onegrid::inference {

void LinearInput::Set(const float* x, int64_t m, int64_t k) {
  x_ = x;
  m_ = m;
  if (numerics_.activations == Precision::kInt8) {
    cpu::QuantizeActivations(absl::MakeConstSpan(x, m * k), m, k, &quantized_,
                             pool_, numerics_.isa);
  }
}

void LinearInput::Multiply(const cpu::PackedInt4Linear& w, float* out) {
  if (numerics_.activations == Precision::kInt8) {
    cpu::Int4Linear(quantized_, w, out, pool_, numerics_.isa);
  } else {
    cpu::Int4LinearF32(x_, m_, w, out, pool_, numerics_.isa);
  }
}

void LinearInput::Multiply(const cpu::PackedInt8Linear& w, float* out) {
  if (numerics_.activations == Precision::kInt8) {
    cpu::Int8Linear(quantized_, w, out, pool_, numerics_.isa);
  } else {
    cpu::Int8LinearF32(x_, m_, w, out, pool_, numerics_.isa);
  }
}

}  // namespace onegrid::inference
