#include "kernels/cpu/int8_head.h"

#include <utility>

#include "kernels/base/check.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/tiled_matmul.h"

namespace onegrid::cpu {
namespace {

void PackCodes(const uint8_t* block, int row, uint8_t* place) {
  for (int k = 0; k < kLinearGroup; ++k) {
    // Flipping the top bit of a two's complement byte adds 128.
    place[64 * (k / 4) + 4 * row + k % 4] =
        static_cast<uint8_t>(block[2 + k] ^ 0x80);
  }
}

int Code(const uint8_t* place, int row, int64_t k) {
  return place[64 * (k / 4) + 4 * row + k % 4] - 128;
}

constexpr TileFormat kFormat = {"Q8_0",          kLinearGroup, 34,
                                kInt8GroupBytes, PackCodes,    Code};

TiledWeights View(const PackedInt8Linear& w) {
  return {w.tiles(), w.n(), w.k(), kInt8GroupBytes};
}

}  // namespace

absl::StatusOr<PackedInt8Linear> PackedInt8Linear::FromQ8_0(
    absl::Span<const uint8_t> blocks, int64_t n, int64_t k,
    kernels::ThreadPool& pool, const BlocksDone& done) {
  auto tiles = PackTiles(kFormat, blocks, n, k, pool, done);
  if (!tiles.ok()) return tiles.status();
  return PackedInt8Linear(n, k, *std::move(tiles));
}

void PackedInt8Linear::DequantizeRow(int64_t row, absl::Span<float> out) const {
  KERNELS_CHECK(row < n_);
  DequantizeTileRow(kFormat, tiles(), k_, row, out);
}

void Int8Linear(const QuantizedActivations& x, const PackedInt8Linear& w,
                float* out, kernels::ThreadPool& pool, kernels::Isa isa) {
  TiledMatmul(x, View(w), LinearKernelsFor(isa).int8_tile, out, pool);
}

void Int8LinearF32(const float* x, int64_t m, const PackedInt8Linear& w,
                   float* out, kernels::ThreadPool& pool, kernels::Isa isa) {
  const LinearKernels& run = LinearKernelsFor(isa);
  TiledMatmulF32(x, m, View(w), run.int8_expand, run, out, pool);
}

}  // namespace onegrid::cpu
