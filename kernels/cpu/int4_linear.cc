#include "kernels/cpu/int4_linear.h"

#include <utility>

#include "kernels/base/check.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/tiled_matmul.h"

namespace onegrid::cpu {
namespace {

// The code of element k of a Q4_0 block, as code + 8.
int BlockCode(const uint8_t* block, int k) {
  const uint8_t pair = block[2 + k % 16];
  return k < 16 ? pair & 15 : pair >> 4;
}

void PackCodes(const uint8_t* block, int row, uint8_t* place) {
  for (int j = 0; j < 4; ++j) {
    for (int b = 0; b < 4; ++b) {
      const int low = BlockCode(block, 8 * j + b);
      const int high = BlockCode(block, 8 * j + 4 + b);
      place[64 * j + 4 * row + b] = static_cast<uint8_t>(low | (high << 4));
    }
  }
}

int Code(const uint8_t* place, int row, int64_t k) {
  const uint8_t pair = place[64 * (k / 8) + 4 * row + k % 4];
  return (k % 8 < 4 ? pair & 15 : pair >> 4) - 8;
}

constexpr TileFormat kFormat = {"Q4_0",          kLinearGroup, 18,
                                kInt4GroupBytes, PackCodes,    Code};

TiledWeights View(const PackedInt4Linear& w) {
  return {w.tiles(), w.n(), w.k(), kInt4GroupBytes};
}

}  // namespace

absl::StatusOr<PackedInt4Linear> PackedInt4Linear::FromQ4_0(
    absl::Span<const uint8_t> blocks, int64_t n, int64_t k,
    kernels::ThreadPool& pool, const BlocksDone& done) {
  auto tiles = PackTiles(kFormat, blocks, n, k, pool, done);
  if (!tiles.ok()) return tiles.status();
  return PackedInt4Linear(n, k, *std::move(tiles));
}

void PackedInt4Linear::DequantizeRow(int64_t row, absl::Span<float> out) const {
  KERNELS_CHECK(row < n_);
  DequantizeTileRow(kFormat, tiles(), k_, row, out);
}

void Int4Linear(const QuantizedActivations& x, const PackedInt4Linear& w,
                float* out, kernels::ThreadPool& pool, kernels::Isa isa) {
  TiledMatmul(x, View(w), LinearKernelsFor(isa).int4_tile, out, pool);
}

void Int4LinearF32(const float* x, int64_t m, const PackedInt4Linear& w,
                   float* out, kernels::ThreadPool& pool, kernels::Isa isa) {
  const LinearKernels& run = LinearKernelsFor(isa);
  TiledMatmulF32(x, m, View(w), run.int4_expand, run, out, pool);
}

}  // namespace onegrid::cpu
