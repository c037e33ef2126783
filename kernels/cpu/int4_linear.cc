#include "kernels/cpu/int4_linear.h"

#include <algorithm>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/check.h"
#include "kernels/base/float_types.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/tiled_matmul.h"

namespace onegrid::cpu {
namespace {

constexpr int64_t kBlockBytes = 18;
constexpr int64_t kCodeBytes = 256;

// The code of element k of a Q4_0 block, as code + 8.
int BlockCode(const uint8_t* block, int k) {
  const uint8_t pair = block[2 + k % 16];
  return k < 16 ? pair & 15 : pair >> 4;
}

// Puts one block in its place as row r of a tile's group.
void PackBlock(const uint8_t* block, int r, uint8_t* group) {
  for (int j = 0; j < 4; ++j) {
    for (int b = 0; b < 4; ++b) {
      const int low = BlockCode(block, 8 * j + b);
      const int high = BlockCode(block, 8 * j + 4 + b);
      group[64 * j + 4 * r + b] = static_cast<uint8_t>(low | (high << 4));
    }
  }
  std::memcpy(group + kCodeBytes + 2 * r, block, 2);
}

TiledWeights View(const PackedInt4Linear& w) {
  return {w.tiles(), w.n(), w.k(), kInt4GroupBytes};
}

}  // namespace

PackedInt4Linear::PackedInt4Linear(int64_t n, int64_t k)
    : n_(n),
      k_(k),
      tiles_(static_cast<size_t>((n + kTileRows - 1) / kTileRows *
                                 (k / kLinearGroup) * kInt4GroupBytes)) {}

absl::StatusOr<PackedInt4Linear> PackedInt4Linear::FromQ4_0(
    absl::Span<const uint8_t> blocks, int64_t n, int64_t k,
    kernels::ThreadPool& pool) {
  if (n <= 0 || k <= 0 || k % kLinearGroup != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "int4 weights are [", n, ", ", k,
        "]: expected positive sizes and a multiple of 32 columns"));
  }
  const int64_t groups = k / kLinearGroup;
  if (static_cast<int64_t>(blocks.size()) / kBlockBytes / groups != n ||
      static_cast<int64_t>(blocks.size()) % (kBlockBytes * groups) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("Q4_0 data of [", n, ", ", k, "] has ", blocks.size(),
                     " bytes, expected ", n * groups * kBlockBytes));
  }
  PackedInt4Linear packed(n, k);
  const int64_t tile_bytes = View(packed).tile_bytes();
  uint8_t* tiles = packed.tiles_.data();
  const int64_t tile_count = View(packed).tile_count();
  pool.ParallelFor(tile_count, pool.GrainFor(tile_count),
                   [&](int64_t begin, int64_t end, int) {
                     for (int64_t row = begin * kTileRows;
                          row < std::min(n, end * kTileRows); ++row) {
                       uint8_t* tile = tiles + row / kTileRows * tile_bytes;
                       for (int64_t g = 0; g < groups; ++g) {
                         PackBlock(
                             blocks.data() + (row * groups + g) * kBlockBytes,
                             static_cast<int>(row % kTileRows),
                             tile + g * kInt4GroupBytes);
                       }
                     }
                   });
  return packed;
}

void PackedInt4Linear::DequantizeRow(int64_t row, absl::Span<float> out) const {
  KERNELS_CHECK(row >= 0 && row < n_);
  KERNELS_CHECK(out.size() == static_cast<size_t>(k_));
  const int64_t r = row % kTileRows;
  const uint8_t* group =
      tiles_.data() + row / kTileRows * View(*this).tile_bytes();
  for (int64_t g = 0; g < k_ / kLinearGroup; ++g) {
    uint16_t scale_bits;
    std::memcpy(&scale_bits, group + kCodeBytes + 2 * r, sizeof(scale_bits));
    const float scale = kernels::F16ToFloat(scale_bits);
    for (int64_t k = 0; k < kLinearGroup; ++k) {
      const uint8_t pair = group[64 * (k / 8) + 4 * r + k % 4];
      const int code = (k % 8 < 4 ? pair & 15 : pair >> 4) - 8;
      out[static_cast<size_t>(g * kLinearGroup + k)] =
          static_cast<float>(code) * scale;
    }
    group += kInt4GroupBytes;
  }
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
