#include "kernels/cpu/quantized_activations.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/cpu/elementwise.h"

namespace onegrid::cpu {
namespace {

void SetRow(int64_t row, const float* x, QuantizedActivations* out) {
  const int64_t panel = out->PanelOf(row);
  out->SetGroups(panel, static_cast<int>(row - out->PanelFirstRow(panel)), 0,
                 out->groups(), x);
}

}  // namespace

// Rows are spread evenly over the panels, so 13 rows make 7 + 6, not 12 + 1.
int64_t QuantizedActivations::streams() const {
  if (panels_.size() != 1 || kernels_->streams == nullptr) return 0;
  return kernels_->streams(panels_[0].rows);
}

void QuantizedActivations::BeginProducts() const {
  // The first panels are the largest.
  if (kernels_->begin != nullptr) kernels_->begin(panels_[0]);
}

void QuantizedActivations::EndProducts() const {
  if (kernels_->end != nullptr) kernels_->end();
}

int64_t QuantizedActivations::PanelFirstRow(int64_t p) const {
  const auto panels = static_cast<int64_t>(panels_.size());
  if (panels == 0) return 0;
  return p * (m_ / panels) + std::min(p, m_ % panels);
}

int64_t QuantizedActivations::PanelOf(int64_t row) const {
  const auto panels = static_cast<int64_t>(panels_.size());
  const int64_t small = m_ / panels;
  const int64_t large_panels = m_ % panels;
  const int64_t in_large = large_panels * (small + 1);
  if (row < in_large) return row / (small + 1);
  return large_panels + (row - in_large) / small;
}

void QuantizedActivations::SetBias(int bias) {
  for (int64_t i = 0; i < m_ * groups(); ++i) {
    int32_t& offset = offsets_[static_cast<size_t>(i)];
    offset = offset / bias_ * bias;
  }
  bias_ = bias;
}

int QuantizedActivations::CodeIn(const ActivationPanel& panel, int64_t row,
                                 int64_t k) const {
  const int64_t group = k / kLinearGroup * panel.rows * kLinearGroup;
  const int64_t in_panel = row * kLinearGroup;
  const int64_t i = k % kLinearGroup;
  if (bits_ == CodeBits::k8) return panel.codes[group + in_panel + i];
  if (kernels_->wide_order == WideOrder::k0213) {
    constexpr int kOrder[4] = {0, 2, 1, 3};
    return panel.wide_codes[group + in_panel + i / 4 * 4 + kOrder[i % 4]];
  }
  const auto* bytes =
      reinterpret_cast<const uint8_t*>(panel.wide_codes + group) + in_panel + i;
  const int low = bytes[0] ^ (panel.rows <= kStackedRows ? 128 : 0);
  return static_cast<int16_t>(low | bytes[panel.rows * kLinearGroup] << 8);
}

int QuantizedActivations::CodeAt(int64_t row, int64_t k) const {
  const int64_t p = PanelOf(row);
  return CodeIn(panels_[static_cast<size_t>(p)], row - PanelFirstRow(p), k);
}

void QuantizedActivations::DequantizeRow(int64_t row, double* out) const {
  const int64_t p = PanelOf(row);
  const ActivationPanel& panel = panels_[static_cast<size_t>(p)];
  row -= PanelFirstRow(p);
  for (int64_t i = 0; i < k_; ++i) {
    const double scale = panel.scales[i / kLinearGroup * panel.rows + row];
    out[i] = CodeIn(panel, row, i) * scale;
  }
}

float QuantizedActivations::ScaleAt(int64_t row, int64_t group) const {
  const int64_t p = PanelOf(row);
  const ActivationPanel& panel = panels_[static_cast<size_t>(p)];
  return panel.scales[group * panel.rows + (row - PanelFirstRow(p))];
}

void QuantizedActivations::Reset(int64_t m, int64_t k, CodeBits bits,
                                 kernels::Isa isa) {
  KERNELS_CHECK(k % kLinearGroup == 0);
  const LinearKernels& kernels = LinearKernelsFor(isa, m, bits);
  bits_ = bits;
  bias_ = Int4Layout::kBias;
  m_ = m;
  k_ = k;
  kernels_ = &kernels;
  const size_t codes = static_cast<size_t>(m * k + kCodePadding);
  const size_t scales = static_cast<size_t>(m * groups());
  constexpr auto kLong = kernels::Lifetime::kLong;
  if (bits == CodeBits::k8 && codes_.size() < codes) {
    codes_ = kernels::AlignedBuffer<int8_t>(codes, kLong);
  }
  if (bits == CodeBits::k16 && wide_codes_.size() < codes) {
    wide_codes_ = kernels::AlignedBuffer<int16_t>(codes, kLong);
  }
  if (scales_.size() < scales) {
    scales_ = kernels::AlignedBuffer<float>(scales, kLong);
    offsets_ = kernels::AlignedBuffer<int32_t>(scales, kLong);
  }
  panels_.resize(
      static_cast<size_t>((m + kernels.panel_rows - 1) / kernels.panel_rows));
  for (size_t p = 0; p < panels_.size(); ++p) {
    const int64_t first = PanelFirstRow(static_cast<int64_t>(p));
    ActivationPanel& panel = panels_[p];
    const bool wide = bits == CodeBits::k16;
    panel.codes = wide ? nullptr : codes_.data() + first * k;
    panel.wide_codes = wide ? wide_codes_.data() + first * k : nullptr;
    panel.scales = scales_.data() + first * groups();
    panel.offsets = offsets_.data() + first * groups();
    panel.groups = groups();
    panel.rows =
        static_cast<int>(PanelFirstRow(static_cast<int64_t>(p) + 1) - first);
  }
}

void QuantizedActivations::SetGroups(int64_t panel, int row, int64_t group,
                                     int64_t count, const float* x) {
  const int64_t first = PanelFirstRow(panel);
  const int rows = panels_[static_cast<size_t>(panel)].rows;
  float* scales = scales_.data() + first * groups() + group * rows;
  int32_t* offsets = offsets_.data() + first * groups() + group * rows;
  const int64_t codes = first * k_ + group * rows * kLinearGroup;
  if (bits_ == CodeBits::k8) {
    kernels_->quantize_row(x, count, row, rows, codes_.data() + codes, scales,
                           offsets);
  } else {
    kernels_->quantize_row_wide(x, count, row, rows, wide_codes_.data() + codes,
                                scales, offsets);
  }
}

void QuantizeActivations(absl::Span<const float> x, int64_t m, int64_t k,
                         CodeBits bits, QuantizedActivations* out,
                         kernels::ThreadPool& pool, kernels::Isa isa) {
  KERNELS_CHECK(x.size() == static_cast<size_t>(m * k));
  out->Reset(m, k, bits, isa);
  pool.ParallelFor(m, RowGrain(m, k, pool),
                   [&](int64_t begin, int64_t end, int) {
                     for (int64_t row = begin; row < end; ++row) {
                       SetRow(row, x.data() + row * k, out);
                     }
                   });
}

void QuantizeRows(int64_t m, int64_t k, CodeBits bits, MakeRows make,
                  QuantizedActivations* out, kernels::ThreadPool& pool,
                  kernels::Isa isa) {
  out->Reset(m, k, bits, isa);
  pool.ParallelFor(
      m, RowGrain(m, k, pool), [&](int64_t begin, int64_t end, int) {
        std::vector<float> room(static_cast<size_t>(kRowsAtOnce * k));
        for (int64_t row = begin; row < end;) {
          const int64_t rows = std::min(kRowsAtOnce, end - row);
          make(row, rows, room.data());
          for (int64_t i = 0; i < rows; ++i) {
            SetRow(row + i, room.data() + i * k, out);
          }
          row += rows;
        }
      });
}

}  // namespace onegrid::cpu
