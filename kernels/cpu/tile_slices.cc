#include "kernels/cpu/tile_slices.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace onegrid::cpu {
namespace {

constexpr int64_t kPageBytes = 4096;
// Places in their pages that streams are apart, at least.
constexpr int64_t kPlaceBytes = 256;
// Units that a stream leaves for another place, at most, and of how many it
// leaves one: the rest is read more slowly.
constexpr int64_t kMostLess = 3;
constexpr int64_t kUnitsToLess = 8;
// A unit of each stream that is larger is too much to wait for.
constexpr int64_t kLastBytes = 256 << 10;
// A slice of what is not in streams.
constexpr int64_t kRestBytes = 64 << 10;

// Whether places so many bytes apart are all different in their pages.
bool PlacesDiffer(int64_t bytes_apart, int64_t streams) {
  for (int64_t s = 1; s < streams; ++s) {
    const int64_t place = s * bytes_apart % kPageBytes;
    if (std::min(place, kPageBytes - place) < kPlaceBytes) return false;
  }
  return true;
}

// Units that each of some streams of `run` should leave.
int64_t UnitsLess(int64_t run, int64_t unit_bytes, int64_t streams) {
  const int64_t most = std::min(run / kUnitsToLess, kMostLess);
  const int64_t least = streams * unit_bytes > kLastBytes && most > 0 ? 1 : 0;
  for (int64_t less = least; less <= most; ++less) {
    if (PlacesDiffer((run - less) * unit_bytes, streams)) return less;
  }
  return least;
}

}  // namespace

TileSlices::TileSlices(const TileRun& tiles, int64_t slice_tiles,
                       int64_t streams, int64_t threads)
    : units_(tiles.count / tiles.unit),
      unit_(tiles.unit),
      tile_bytes_(tiles.bytes),
      streams_(streams),
      threads_(threads) {
  KERNELS_CHECK(tiles.count >= 1 && tiles.count % tiles.unit == 0);
  KERNELS_CHECK(tiles.bytes >= 1 && slice_tiles >= 1);
  KERNELS_CHECK(streams >= 1 && threads >= 1);
  const int64_t unit_bytes = unit_ * tiles.bytes;
  const int64_t least = units_ / threads, most = (units_ - 1) / threads + 1;
  less_ = UnitsLess(least / streams, unit_bytes, streams);
  const int64_t at_most = std::max<int64_t>(slice_tiles / (streams * unit_), 1);
  cuts_.push_back(0);
  for (int64_t left = Run(most); left > 0;) {
    const int64_t taken = std::min((left + 1) / 2, at_most);
    cuts_.push_back(cuts_.back() + taken);
    left -= taken;
  }
  rest_units_ = std::clamp<int64_t>(kRestBytes / unit_bytes, 1,
                                    std::max<int64_t>(slice_tiles / unit_, 1));
  for (const int64_t units : {least, most}) {
    const int64_t rest = units - Run(units) * streams;
    rests_ = std::max(rests_, (rest + rest_units_ - 1) / rest_units_);
  }
}

int64_t TileSlices::Run(int64_t share_units) const {
  return share_units / streams_ - less_;
}

TileSlice TileSlices::operator[](int64_t i) const {
  const int64_t share = i / per_share(), part = i % per_share();
  const int64_t first = units_ * share / threads_;
  const int64_t end = units_ * (share + 1) / threads_;
  const int64_t run = Run(end - first);
  const int64_t slices = static_cast<int64_t>(cuts_.size()) - 1;
  if (part < slices) {
    const auto at = static_cast<size_t>(part);
    const int64_t from = cuts_[at];  // At most `run`: shares differ by a unit.
    const int64_t to = std::min(cuts_[at + 1], run);
    return {(first + from) * unit_, (to - from) * unit_, streams_, run * unit_};
  }
  const int64_t from =
      std::min(first + run * streams_ + (part - slices) * rest_units_, end);
  return {from * unit_, std::min(rest_units_, end - from) * unit_, 1, 0};
}

kernels::FirstReads TileSlices::FirstOf(int64_t share,
                                        const uint8_t* tiles) const {
  const TileSlice slice = (*this)[share * per_share()];
  return {tiles + slice.tile * tile_bytes_, slice.apart * tile_bytes_,
          slice.tiles * tile_bytes_, static_cast<int>(slice.streams)};
}

}  // namespace onegrid::cpu
