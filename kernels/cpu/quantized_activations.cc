#include "kernels/cpu/quantized_activations.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace onegrid::cpu {

// Rows are spread evenly over the panels, so 13 rows make 7 + 6, not 12 + 1.
int64_t QuantizedActivations::PanelFirstRow(int64_t p) const {
  if (panels_ == 0) return 0;
  return p * (m_ / panels_) + std::min(p, m_ % panels_);
}

int64_t QuantizedActivations::PanelOf(int64_t row) const {
  const int64_t small = m_ / panels_;
  const int64_t large_panels = m_ % panels_;
  const int64_t in_large = large_panels * (small + 1);
  if (row < in_large) return row / (small + 1);
  return large_panels + (row - in_large) / small;
}

ActivationPanel QuantizedActivations::Panel(int64_t p) const {
  const int64_t first = PanelFirstRow(p);
  ActivationPanel panel;
  panel.codes = codes_.data() + first * k_;
  panel.scales = scales_.data() + first * groups();
  panel.offsets = offsets_.data() + first * groups();
  panel.groups = groups();
  panel.rows = static_cast<int>(PanelFirstRow(p + 1) - first);
  return panel;
}

int8_t QuantizedActivations::CodeAt(int64_t row, int64_t k) const {
  const int64_t p = PanelOf(row);
  const ActivationPanel panel = Panel(p);
  const int64_t at = (k / kLinearGroup) * panel.rows + (row - PanelFirstRow(p));
  return panel.codes[at * kLinearGroup + k % kLinearGroup];
}

float QuantizedActivations::ScaleAt(int64_t row, int64_t group) const {
  const int64_t p = PanelOf(row);
  const ActivationPanel panel = Panel(p);
  return panel.scales[group * panel.rows + (row - PanelFirstRow(p))];
}

void QuantizedActivations::Resize(int64_t m, int64_t k) {
  m_ = m;
  k_ = k;
  panels_ = (m + kPanelRows - 1) / kPanelRows;
  const size_t codes = static_cast<size_t>(m * k);
  const size_t scales = static_cast<size_t>(m * groups());
  if (codes_.size() >= codes) return;
  codes_ = kernels::AlignedBuffer<int8_t>(codes);
  scales_ = kernels::AlignedBuffer<float>(scales);
  offsets_ = kernels::AlignedBuffer<int32_t>(scales);
}

void QuantizeActivations(absl::Span<const float> x, int64_t m, int64_t k,
                         QuantizedActivations* out, kernels::ThreadPool& pool,
                         kernels::Isa isa) {
  KERNELS_CHECK(k % kLinearGroup == 0);
  KERNELS_CHECK(x.size() == static_cast<size_t>(m * k));
  out->Resize(m, k);
  const LinearKernels& run = LinearKernelsFor(isa);
  // Below this a loop over threads costs more than it saves.
  constexpr int64_t kMinFloatsPerRange = 16384;
  const int64_t min_grain =
      (kMinFloatsPerRange + k - 1) / std::max(k, int64_t{1});
  pool.ParallelFor(
      m, std::max(pool.GrainFor(m), min_grain),
      [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t p = out->PanelOf(row);
          const int64_t first = out->PanelFirstRow(p);
          const int rows = static_cast<int>(out->PanelFirstRow(p + 1) - first);
          run.quantize_row(x.data() + row * k, out->groups(),
                           static_cast<int>(row - first), rows,
                           out->codes_.data() + first * k,
                           out->scales_.data() + first * out->groups(),
                           out->offsets_.data() + first * out->groups());
        }
      });
}

}  // namespace onegrid::cpu
