// How the blocks of a GGUF matrix are laid out for the linear kernels.
#ifndef KERNELS_CPU_TILE_FORMAT_H_
#define KERNELS_CPU_TILE_FORMAT_H_

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/thread_pool.h"

namespace onegrid::cpu {

// A block holds an f16 scale and the codes of some elements of one row; its
// place in a tile (linear_kernels.h) holds those of 16 rows, 16 scales last.
struct TileFormat {
  const char* name;  // "Q4_0", for errors.
  int64_t block_elements;
  int64_t block_bytes;
  int64_t place_bytes;
  // Puts the codes of a block, whose scale is in its first two bytes, in their
  // place as row `row` of 16. The place is zeroed before.
  void (*pack_codes)(const uint8_t* block, int row, uint8_t* place);
  // The code of element k of the block packed as row `row`.
  int (*code)(const uint8_t* place, int row, int64_t k);
};

// Told which part of the blocks is not needed any more, from any thread of the
// pool; may be null.
using BlocksDone = std::function<void(absl::Span<const uint8_t> blocks)>;

// Blocks of [n, k], row by row, as ceil(n / 16) tiles. InvalidArgument: n or k
// is not positive, k is no multiple of block_elements, `blocks` has another
// size than n and k ask for, or a scale is not finite.
absl::StatusOr<kernels::AlignedBuffer<uint8_t>> PackTiles(
    const TileFormat& format, absl::Span<const uint8_t> blocks, int64_t n,
    int64_t k, kernels::ThreadPool& pool, const BlocksDone& done);

// out [k] = row `row` of a matrix packed with k columns, as code * scale.
void DequantizeTileRow(const TileFormat& format, const uint8_t* tiles,
                       int64_t k, int64_t row, absl::Span<float> out);

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_TILE_FORMAT_H_
