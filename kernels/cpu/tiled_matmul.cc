#include "kernels/cpu/tiled_matmul.h"

#include <algorithm>
#include <cstring>

#include "absl/types/span.h"
#include "kernels/base/check.h"
#include "kernels/cpu/nibble_planes.h"

namespace onegrid::cpu {
namespace {

// Activations that one pass over the weight tiles should find in the L2 cache.
constexpr int64_t kActivationBytes = 384 * 1024;
// Weights that a thread takes at once, at most: or some wait for the last of a
// large matrix.
constexpr int64_t kRangeBytes = 1 << 20;
// Rows and groups of one block in float mode: 16 KB of expanded weights.
constexpr int64_t kF32Rows = 96;
constexpr int64_t kF32Groups = 8;

// Copies the first `columns` of 16 columns.
void CopyColumns(const float* from, int64_t rows, int64_t columns, float* out,
                 int64_t out_stride) {
  for (int64_t m = 0; m < rows; ++m) {
    std::memcpy(out + m * out_stride, from + m * kTileRows,
                static_cast<size_t>(columns) * sizeof(float));
  }
}

}  // namespace

TileBytes TiledWeights::Tile(int64_t t) const {
  if (lower == nullptr) return {tiles + t * tile_bytes()};
  return {tiles + t * groups() * kUpperGroupBytes,
          lower + t * groups() * kLowerGroupBytes};
}

const uint8_t* TiledWeights::WholeTile(
    int64_t t, kernels::AlignedBuffer<uint8_t>& buffer) const {
  if (lower == nullptr) return Tile(t).at;
  JoinTile(Tile(t), groups(), buffer.data());
  return buffer.data();
}

kernels::AlignedBuffer<uint8_t> TiledWeights::Buffer() const {
  return kernels::AlignedBuffer<uint8_t>(
      lower == nullptr ? 0 : static_cast<size_t>(tile_bytes()));
}

void TiledMatmul(const QuantizedActivations& x, const TiledWeights& weights,
                 TileKernel kernel, float* out, kernels::ThreadPool& pool) {
  KERNELS_CHECK(x.k() == weights.k);
  if (x.m() == 0) return;
  const absl::Span<const ActivationPanel> panels = x.panels();
  const int64_t tiles = weights.tile_count();
  const int64_t panels_per_chunk = std::max<int64_t>(
      1, kActivationBytes / (weights.k * x.kernels().panel_rows));
  const int64_t chunks =
      (static_cast<int64_t>(panels.size()) - 1) / panels_per_chunk + 1;
  const auto body = [&](int64_t begin, int64_t end, int) {
    if (x.kernels().begin != nullptr) x.kernels().begin();
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item / tiles * panels_per_chunk;
      const int64_t t = item % tiles;
      const TileBytes tile = weights.Tile(t);
      const int64_t columns =
          std::min<int64_t>(kTileRows, weights.n - t * kTileRows);
      const auto chunk = panels.subspan(static_cast<size_t>(first),
                                        static_cast<size_t>(panels_per_chunk));
      float* to = out + x.PanelFirstRow(first) * weights.n + t * kTileRows;
      if (columns == kTileRows) {
        kernel(chunk.data(), static_cast<int64_t>(chunk.size()), tile, to,
               weights.n);
        continue;
      }
      for (const ActivationPanel& panel : chunk) {
        float edge[kMaxPanelRows * kTileRows];
        kernel(&panel, 1, tile, edge, kTileRows);
        CopyColumns(edge, panel.rows, columns, to, weights.n);
        to += panel.rows * weights.n;
      }
    }
    if (x.kernels().end != nullptr) x.kernels().end();
  };
  const int64_t grain =
      std::min(pool.GrainFor(chunks * tiles),
               std::max<int64_t>(1, kRangeBytes / weights.tile_bytes()));
  pool.ParallelFor(chunks * tiles, grain, body);
}

void TiledMatmulF32(const float* x, int64_t m, const TiledWeights& weights,
                    ExpandKernel expand, const FloatKernels& run, float* out,
                    kernels::ThreadPool& pool) {
  if (m == 0) return;
  const int64_t tiles = weights.tile_count();
  const int64_t chunks = (m - 1) / kF32Rows + 1;
  const int64_t groups = weights.groups();
  const auto body = [&](int64_t begin, int64_t end, int) {
    alignas(64) float w[kF32Groups * kLinearGroup * kTileRows];
    float edge[kF32Rows * kTileRows];
    kernels::AlignedBuffer<uint8_t> buffer = weights.Buffer();
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item / tiles * kF32Rows;
      const int64_t t = item % tiles;
      const int64_t rows = std::min(kF32Rows, m - first);
      const uint8_t* tile = weights.WholeTile(t, buffer);
      const int64_t columns =
          std::min<int64_t>(kTileRows, weights.n - t * kTileRows);
      const bool whole = columns == kTileRows;
      float* to = out + first * weights.n + t * kTileRows;
      for (int64_t g = 0; g < groups; g += kF32Groups) {
        const int64_t count = std::min(kF32Groups, groups - g);
        expand(tile + g * weights.group_bytes, count, w);
        run.f32_tile(x + first * weights.k + g * kLinearGroup, weights.k, rows,
                     w, count * kLinearGroup, g > 0, whole ? to : edge,
                     whole ? weights.n : kTileRows);
      }
      if (!whole) CopyColumns(edge, rows, columns, to, weights.n);
    }
  };
  pool.ParallelFor(chunks * tiles, pool.GrainFor(chunks * tiles), body);
}

}  // namespace onegrid::cpu
