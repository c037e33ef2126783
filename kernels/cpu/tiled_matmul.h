#ifndef KERNELS_CPU_TILED_MATMUL_H_
#define KERNELS_CPU_TILED_MATMUL_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/quantized_activations.h"
#include "kernels/cpu/tile_slices.h"

namespace onegrid::cpu {

// A weight matrix [n, k] as ceil(n / 16) tiles of k / 32 groups, each group of
// group_bytes bytes, in one of the layouts of linear_kernels.h; of int8 they
// may be split into planes, as nibble_planes.h says.
struct TiledWeights {
  const uint8_t* tiles;  // of the upper plane if they are split
  int64_t n;
  int64_t k;
  int64_t group_bytes;             // of tiles that are not split
  const uint8_t* lower = nullptr;  // the other plane

  int64_t groups() const { return k / kLinearGroup; }
  // Of a tile that is not split.
  int64_t tile_bytes() const { return groups() * group_bytes; }
  // Tiles [t, t + count), 0 <= t, t + count <= tile_count().
  TileBytes Tiles(int64_t t, int64_t count) const;
  TileBytes Tile(int64_t t) const { return Tiles(t, 1); }
  // The same not split: where it lies, or joined in a buffer of this matrix.
  const uint8_t* WholeTile(int64_t t,
                           kernels::AlignedBuffer<uint8_t>& buffer) const;
  // Empty if no tile is split.
  kernels::AlignedBuffer<uint8_t> Buffer() const;
  int64_t tile_count() const { return (n + kTileRows - 1) / kTileRows; }
};

// out = the products of all rows of some panels with the tiles of a slice,
// those of stream s in columns s * stream_columns + [0, 16 * slice.tiles). The
// last tile of the weights may be past their end. Between begin() and end() of
// `kernels`, to which `kernel` belongs.
void MultiplySlice(absl::Span<const ActivationPanel> panels,
                   const LinearKernels& kernels, TileKernel kernel,
                   const TiledWeights& weights, const TileSlice& slice,
                   int64_t stream_columns, float* out, int64_t out_stride);

using ExpandKernel = void (*)(const uint8_t*, int64_t, float*);

// out [m, n] = x [m, k] * weights^T, integer dot products in each group.
struct TiledProduct {
  TiledWeights weights;
  TileKernel kernel;
  float* out;
};
// Of few rows all products in one loop: threads wait for each other once.
void TiledMatmul(const QuantizedActivations& x,
                 absl::Span<const TiledProduct> products,
                 kernels::ThreadPool& pool);

// The same with x in floats and weights expanded to floats, block by block.
void TiledMatmulF32(const float* x, int64_t m, const TiledWeights& weights,
                    ExpandKernel expand, const FloatKernels& run, float* out,
                    kernels::ThreadPool& pool);

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_TILED_MATMUL_H_
