#ifndef KERNELS_CPU_QUANTIZED_ACTIVATIONS_H_
#define KERNELS_CPU_QUANTIZED_ACTIVATIONS_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/linear_kernels.h"

namespace onegrid::cpu {

// Activations x [m, k] as int8 or int16 in groups of 32 along k, each with an
// f32 scale (amax / 127 or 32767, codes rounded half to even), laid out in
// panels for the linear kernels of one instruction set. Reuse one object: it
// grows to the largest m * k seen and then allocates no more. Safe to read from
// many threads; filling it needs exclusive access.
class QuantizedActivations {
 public:
  int64_t m() const { return m_; }
  int64_t k() const { return k_; }
  CodeBits bits() const { return bits_; }
  int64_t groups() const { return k_ / kLinearGroup; }

  // The kernels whose layout this is.
  const LinearKernels& kernels() const { return *kernels_; }
  absl::Span<const ActivationPanel> panels() const { return panels_; }
  // Tiles of weights that should be read side by side for these rows, in slices
  // (tile_slices.h); 0: weights should not be taken in slices.
  int64_t streams() const;
  // To be called by a thread before and after its products of panels, of which
  // there is one at least.
  void BeginProducts() const;
  void EndProducts() const;
  // First row of panel p; PanelFirstRow(panels().size()) == m().
  int64_t PanelFirstRow(int64_t p) const;
  // The panel that holds row.
  int64_t PanelOf(int64_t row) const;

  // Makes room for [m, k], all of them yet to be set by SetGroups, in the
  // layout for `isa`. k is a multiple of 32.
  void Reset(int64_t m, int64_t k, CodeBits bits, kernels::Isa isa);
  // Quantizes `count` groups, from `group` on, of row `row` of a panel: x
  // [32 * count]. Different rows and groups may be set at once.
  void SetGroups(int64_t panel, int row, int64_t group, int64_t count,
                 const float* x);

  // Makes the offsets those of codes that are more by `bias` instead of 8.
  void SetBias(int bias);

  // out [k] = row `row`, codes times scales, exactly.
  void DequantizeRow(int64_t row, double* out) const;

  // One code and one scale, for tests and oracles.
  int CodeAt(int64_t row, int64_t k) const;
  float ScaleAt(int64_t row, int64_t group) const;

 private:
  // Of row `row` of a panel.
  int CodeIn(const ActivationPanel& panel, int64_t row, int64_t k) const;

  int64_t m_ = 0;
  int64_t k_ = 0;
  const LinearKernels* kernels_ = nullptr;
  std::vector<ActivationPanel> panels_;
  CodeBits bits_ = CodeBits::k8;
  int bias_ = Int4Layout::kBias;  // of the offsets
  kernels::AlignedBuffer<int8_t> codes_;
  kernels::AlignedBuffer<int16_t> wide_codes_;
  kernels::AlignedBuffer<float> scales_;
  kernels::AlignedBuffer<int32_t> offsets_;
};

// x holds m * k floats, row-major; k is a multiple of 32.
void QuantizeActivations(absl::Span<const float> x, int64_t m, int64_t k,
                         CodeBits bits, QuantizedActivations* out,
                         kernels::ThreadPool& pool,
                         kernels::Isa isa = kernels::BestIsa());

// Rows that are made at once, so that they stay in a cache for what follows.
inline constexpr int64_t kRowsAtOnce = 4;

// Makes rows [row, row + rows), at most kRowsAtOnce: out [rows][k].
using MakeRows = absl::FunctionRef<void(int64_t row, int64_t rows, float* out)>;

// The same of rows that are made shortly before, each once, by several threads.
void QuantizeRows(int64_t m, int64_t k, CodeBits bits, MakeRows make,
                  QuantizedActivations* out, kernels::ThreadPool& pool,
                  kernels::Isa isa = kernels::BestIsa());

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_QUANTIZED_ACTIVATIONS_H_
