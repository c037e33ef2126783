#include "kernels/cpu/tile_slices.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace onegrid::cpu {

TileSlices::TileSlices(int64_t tiles, int64_t unit, int64_t slice_tiles,
                       int64_t streams, int64_t threads)
    : units_(tiles / unit), unit_(unit), streams_(streams), threads_(threads) {
  KERNELS_CHECK(tiles >= 1 && tiles % unit == 0);
  KERNELS_CHECK(slice_tiles >= 1 && streams >= 1 && threads >= 1);
  // Units of a stream, at most.
  const int64_t run = ((units_ - 1) / threads + 1) / streams;
  const int64_t each = std::max<int64_t>(slice_tiles / (streams * unit), 1);
  per_share_ = std::max<int64_t>((run + each - 1) / each, 1) + 1;
}

TileSlice TileSlices::operator[](int64_t i) const {
  const int64_t share = i / per_share_, part = i % per_share_;
  const int64_t first = units_ * share / threads_;
  const int64_t end = units_ * (share + 1) / threads_;
  const int64_t run = (end - first) / streams_;
  const int64_t slices = per_share_ - 1;
  if (part == slices) {
    const int64_t rest = first + run * streams_;
    return {rest * unit_, (end - rest) * unit_, 1, 0};
  }
  const int64_t from = run * part / slices, to = run * (part + 1) / slices;
  return {(first + from) * unit_, (to - from) * unit_, streams_, run * unit_};
}

}  // namespace onegrid::cpu
