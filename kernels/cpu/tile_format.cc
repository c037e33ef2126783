#include "kernels/cpu/tile_format.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/check.h"
#include "kernels/base/float_types.h"
#include "kernels/cpu/linear_kernels.h"

namespace onegrid::cpu {
namespace {

// Of one f16 scale for each row of a tile.
constexpr int64_t kScaleBytes = 2 * kTileRows;

}  // namespace

absl::StatusOr<kernels::AlignedBuffer<uint8_t>> PackTiles(
    const TileFormat& format, absl::Span<const uint8_t> blocks, int64_t n,
    int64_t k, kernels::ThreadPool& pool, const BlocksDone& done) {
  if (n <= 0 || k <= 0 || k % format.block_elements != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(format.name, " weights are [", n, ", ", k,
                     "]: expected positive sizes and a multiple of ",
                     format.block_elements, " columns"));
  }
  const int64_t row_blocks = k / format.block_elements;
  const int64_t row_bytes = row_blocks * format.block_bytes;
  const auto bytes = static_cast<int64_t>(blocks.size());
  if (bytes / format.block_bytes / row_blocks != n || bytes % row_bytes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(format.name, " data of [", n, ", ", k, "] has ", bytes,
                     " bytes, expected ", n * row_bytes));
  }
  const int64_t tile_count = (n + kTileRows - 1) / kTileRows;
  const int64_t tile_bytes = row_blocks * format.place_bytes;
  kernels::AlignedBuffer<uint8_t> tiles(
      static_cast<size_t>(tile_count * tile_bytes));
  std::atomic<int64_t> bad_block{-1};
  const auto pack_row = [&](int64_t row) {
    const int r = static_cast<int>(row % kTileRows);
    const uint8_t* block = blocks.data() + row * row_bytes;
    uint8_t* place = tiles.data() + row / kTileRows * tile_bytes;
    for (int64_t i = 0; i < row_blocks; ++i) {
      if ((block[1] & 0x7C) == 0x7C) bad_block = row * row_blocks + i;
      format.pack_codes(block, r, place);
      std::memcpy(place + format.place_bytes - kScaleBytes + 2 * r, block, 2);
      block += format.block_bytes;
      place += format.place_bytes;
    }
  };
  pool.ParallelFor(
      tile_count, pool.GrainFor(tile_count),
      [&](int64_t begin, int64_t end, int) {
        const int64_t first = begin * kTileRows;
        const int64_t last = std::min(n, end * kTileRows);
        for (int64_t row = first; row < last; ++row) pack_row(row);
        if (done == nullptr) return;
        done(blocks.subspan(static_cast<size_t>(first * row_bytes),
                            static_cast<size_t>((last - first) * row_bytes)));
      });
  if (bad_block >= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(format.name,
                     " data has a scale that is not finite, in "
                     "block ",
                     bad_block.load()));
  }
  return tiles;
}

void DequantizeTileRow(const TileFormat& format, const uint8_t* tiles,
                       int64_t k, int64_t row, absl::Span<float> out) {
  KERNELS_CHECK(row >= 0);
  KERNELS_CHECK(out.size() == static_cast<size_t>(k));
  const int r = static_cast<int>(row % kTileRows);
  const int64_t row_blocks = k / format.block_elements;
  const uint8_t* place =
      tiles + row / kTileRows * row_blocks * format.place_bytes;
  float* to = out.data();
  for (int64_t i = 0; i < row_blocks; ++i) {
    uint16_t bits;
    std::memcpy(&bits, place + format.place_bytes - kScaleBytes + 2 * r,
                sizeof(bits));
    const float scale = kernels::F16ToFloat(bits);
    for (int64_t j = 0; j < format.block_elements; ++j) {
      *to++ = static_cast<float>(format.code(place, r, j)) * scale;
    }
    place += format.place_bytes;
  }
}

}  // namespace onegrid::cpu
