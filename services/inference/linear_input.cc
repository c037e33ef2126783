#include "services/inference/linear_input.h"

#include <algorithm>
#include <cstddef>

#include "absl/types/span.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/quant/int8_activations.h"

namespace onegrid::inference {
namespace {

void Grow(size_t size, kernels::AlignedBuffer<float>* buffer) {
  if (buffer->size() < size) *buffer = kernels::AlignedBuffer<float>(size);
}

}  // namespace

void LinearInput::Set(const float* x, int64_t m, int64_t k, Terms terms) {
  x_ = x;
  m_ = m;
  k_ = k;
  terms_ = terms;
  is_quantized_ = false;
}

void LinearInput::Quantize() {
  is_quantized_ = true;
  cpu::QuantizeActivations(absl::MakeConstSpan(x_, m_ * k_), m_, k_,
                           &quantized_, pool_, numerics_.isa);
  if (terms_ == kOneTerm) return;
  StackRest();
  cpu::QuantizeActivations(absl::MakeConstSpan(stacked_.data(), 2 * m_ * k_),
                           2 * m_, k_, &quantized_, pool_, numerics_.isa);
}

void LinearInput::StackRest() {
  const int64_t m = m_, k = k_;
  const float* x = x_;
  Grow(2 * m * k, &stacked_);
  std::copy(x, x + m * k, stacked_.data());
  const int64_t panels = quantized_.panels();
  pool_.ParallelFor(panels, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      const cpu::ActivationPanel panel = quantized_.Panel(p);
      for (int row = 0; row < panel.rows; ++row) {
        const float* in = x + (quantized_.PanelFirstRow(p) + row) * k;
        float* rest = stacked_.data() + (in - x) + m * k;
        for (int64_t g = 0; g < panel.groups; ++g) {
          const int64_t at = g * panel.rows + row;
          const int8_t* codes = panel.codes + at * cpu::kLinearGroup;
          quant::Int8Rest(absl::MakeConstSpan(in + g * cpu::kLinearGroup,
                                              cpu::kLinearGroup),
                          codes, panel.scales[at],
                          rest + g * cpu::kLinearGroup);
        }
      }
    }
  });
}

void LinearInput::Multiply(const cpu::PackedLinear& w, float* out) {
  if (numerics_.activations == Precision::kF32 || !w.has_codes()) {
    cpu::LinearF32(x_, m_, w, out, pool_, numerics_.isa);
    return;
  }
  if (!is_quantized_) Quantize();
  if (terms_ == kOneTerm) {
    cpu::Linear(quantized_, w, out, pool_, numerics_.isa);
    return;
  }
  const int64_t count = m_ * w.n();
  Grow(2 * count, &products_);
  cpu::Linear(quantized_, w, products_.data(), pool_, numerics_.isa);
  cpu::Add(products_.data(), products_.data() + count, count, out, pool_,
           numerics_.isa);
}

}  // namespace onegrid::inference
