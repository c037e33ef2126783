// Weight matrices of 2-, 4- and 8-bit codes or bf16, and their products.
#ifndef KERNELS_CPU_PACKED_LINEAR_H_
#define KERNELS_CPU_PACKED_LINEAR_H_

#include <cstdint>
#include <functional>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/quantized_activations.h"
#include "kernels/cpu/tile_slices.h"
#include "kernels/quant/ggml_types.h"

namespace onegrid::cpu {

// How a type of GGUF block lies in tiles: packed_linear.cc.
struct TileFormat;

// A matrix [n, k] of the blocks of a GGUF file, repacked once for the linear
// kernels (layout: linear_kernels.h). The same bytes serve every instruction
// set and float mode. Codes and scales are those of the file, bit for bit:
//   Q2_0  -1..2      groups of 64
//   Q4_0  -8..7      groups of 32
//   Q8_0  -128..127  groups of 32
//   BF16  no codes, handled in runs of 32
// Scales may be negative. Immutable, so safe to share.
class PackedLinear {
 public:
  // Told which part of the blocks is not needed any more, from any thread of
  // the pool; may be null.
  using BlocksDone = std::function<void(absl::Span<const uint8_t> blocks)>;
  // kSplit: of Q8_0 the upper and the lower halves of all codes lie apart, so
  // that the upper ones can be read alone (nibble_planes.h). Other types are
  // never split.
  enum class Storage { kWhole, kSplit };

  // blocks: those of [n, k], row by row; not needed afterwards.
  // Unimplemented: another type. InvalidArgument: n or k is not positive, k is
  // no multiple of the group, blocks has another size than n and k ask for, or
  // a scale or value is not finite.
  static absl::StatusOr<PackedLinear> FromBlocks(
      quant::GgmlType type, absl::Span<const uint8_t> blocks, int64_t n,
      int64_t k, kernels::ThreadPool& pool, const BlocksDone& done = nullptr,
      Storage storage = Storage::kWhole);

  const TileFormat& format() const { return *format_; }
  // False: takes activations in floats only.
  bool has_codes() const;
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  int64_t elements() const { return n_ * k_; }
  int64_t bytes() const {
    return static_cast<int64_t>(tiles_.size() + lower_.size());
  }
  bool split() const { return !lower_.empty(); }
  // Of the upper plane if split().
  const uint8_t* tiles() const { return tiles_.data(); }
  // nullptr if not split().
  const uint8_t* lower() const { return lower_.data(); }
  int64_t tile_count() const { return (n_ + kTileRows - 1) / kTileRows; }

  // out [k] = row `row` in floats: the embedding of one token.
  // 0 <= row < n().
  void DequantizeRow(int64_t row, absl::Span<float> out) const;

 private:
  PackedLinear(const TileFormat& format, int64_t n, int64_t k,
               kernels::AlignedBuffer<uint8_t> tiles,
               kernels::AlignedBuffer<uint8_t> lower)
      : format_(&format),
        n_(n),
        k_(k),
        tiles_(std::move(tiles)),
        lower_(std::move(lower)) {}

  const TileFormat* format_;
  int64_t n_;
  int64_t k_;
  kernels::AlignedBuffer<uint8_t> tiles_;
  kernels::AlignedBuffer<uint8_t> lower_;
};

// out [m, n] = x [m, k] * w^T. In each group of 32 an exact integer dot
// product, scaled and summed over groups in f32. x.k() == w.k();
// w.has_codes(). x was quantized for isa.
void Linear(const QuantizedActivations& x, const PackedLinear& w, float* out,
            kernels::ThreadPool& pool, kernels::Isa isa = kernels::BestIsa());

// The same for each of some weights, of few rows in one loop of the threads.
struct LinearProduct {
  const PackedLinear* weights;
  float* out;
};
void Linear(const QuantizedActivations& x,
            absl::Span<const LinearProduct> products, kernels::ThreadPool& pool,
            kernels::Isa isa = kernels::BestIsa());

// Some panels of activations and some tiles of 16 rows of weights.
struct ProductPart {
  int64_t panel, panels;
  TileSlice slice;
};
// Their products, of rows past the end of the weights anything: out [rows of
// the panels, 16 * slice.size()], stream by stream, bit for bit those of
// Linear. On this thread.
void LinearPart(const QuantizedActivations& x, const PackedLinear& w,
                const ProductPart& part, float* out);

// The same of all panels and one tile, which is far from those computed before
// and after: out [m, 16]. 0 <= 16 * tile < w.n().
void LinearTile(const QuantizedActivations& x, const PackedLinear& w,
                int64_t tile, float* out);

// Asks for a tile's memory, into the L2 cache.
void FetchTile(const PackedLinear& w, int64_t tile);

// out [n]: the Euclidean norms of the rows of w, computed in f32.
// w.has_codes().
void RowNorms(const PackedLinear& w, float* out, kernels::ThreadPool& pool,
              kernels::Isa isa = kernels::BestIsa());

// The same product with x [m, k] and the weights (code * scale) in f32.
void LinearF32(const float* x, int64_t m, const PackedLinear& w, float* out,
               kernels::ThreadPool& pool,
               kernels::Isa isa = kernels::BestIsa());

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_PACKED_LINEAR_H_
