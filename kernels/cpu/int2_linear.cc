#include "kernels/cpu/int2_linear.h"

#include <utility>

#include "kernels/base/check.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/tiled_matmul.h"

namespace onegrid::cpu {
namespace {

// Byte and shift of element k of row `row`.
struct Place {
  int64_t byte;
  int shift;
};

Place PlaceOf(int row, int64_t k) {
  return {64 * (k / 16) + 4 * row + k % 4, static_cast<int>(k / 4 % 4 * 2)};
}

void PackCodes(const uint8_t* block, int row, uint8_t* place) {
  for (int k = 0; k < kInt2Group; ++k) {
    const int code = (block[2 + k / 4] >> (k % 4 * 2)) & 3;
    const Place at = PlaceOf(row, k);
    place[at.byte] |= static_cast<uint8_t>(code << at.shift);
  }
}

int Code(const uint8_t* place, int row, int64_t k) {
  const Place at = PlaceOf(row, k);
  return ((place[at.byte] >> at.shift) & 3) - 1;
}

constexpr TileFormat kFormat = {"Q2_0",          kInt2Group, 18,
                                kInt2GroupBytes, PackCodes,  Code};

// The kernels count in groups of 32, two of which share a place.
TiledWeights View(const PackedInt2Linear& w) {
  return {w.tiles(), w.n(), w.k(),
          kInt2GroupBytes / (kInt2Group / kLinearGroup)};
}

}  // namespace

absl::StatusOr<PackedInt2Linear> PackedInt2Linear::FromQ2_0(
    absl::Span<const uint8_t> blocks, int64_t n, int64_t k,
    kernels::ThreadPool& pool, const BlocksDone& done) {
  auto tiles = PackTiles(kFormat, blocks, n, k, pool, done);
  if (!tiles.ok()) return tiles.status();
  return PackedInt2Linear(n, k, *std::move(tiles));
}

void PackedInt2Linear::DequantizeRow(int64_t row, absl::Span<float> out) const {
  KERNELS_CHECK(row < n_);
  DequantizeTileRow(kFormat, tiles(), k_, row, out);
}

void Int2Linear(const QuantizedActivations& x, const PackedInt2Linear& w,
                float* out, kernels::ThreadPool& pool, kernels::Isa isa) {
  TiledMatmul(x, View(w), LinearKernelsFor(isa).int2_tile, out, pool);
}

void Int2LinearF32(const float* x, int64_t m, const PackedInt2Linear& w,
                   float* out, kernels::ThreadPool& pool, kernels::Isa isa) {
  const LinearKernels& run = LinearKernelsFor(isa);
  TiledMatmulF32(x, m, View(w), run.int2_expand, run, out, pool);
}

}  // namespace onegrid::cpu
