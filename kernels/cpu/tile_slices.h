// How threads share the tiles of a weight matrix that few rows of activations
// are multiplied with.
#ifndef KERNELS_CPU_TILE_SLICES_H_
#define KERNELS_CPU_TILE_SLICES_H_

#include <cstdint>
#include <vector>

#include "kernels/base/read_ahead.h"

namespace onegrid::cpu {

// Tiles [tile + s * apart, tile + s * apart + tiles) for each s < streams: they
// are read side by side, the first of each stream, then the second, and so on.
struct TileSlice {
  int64_t tile = 0;
  int64_t tiles = 0;
  int64_t streams = 1;
  int64_t apart = 0;

  // Over all streams.
  int64_t size() const { return tiles * streams; }
  // Tiles [begin, begin + count) of each stream.
  TileSlice Part(int64_t begin, int64_t count) const {
    return {tile + begin, count, streams, apart};
  }
};

// The tiles of a matrix, or of the upper plane of one that is split. Of `unit`
// tiles, which divide `count`, none is parted from others.
struct TileRun {
  int64_t count;
  int64_t bytes;  // from one to the next
  int64_t unit = 1;
};

// The tiles are parted into equal shares, one after the other, and most of a
// share into streams, one after the other. So a thread that takes the slices of
// a share in turn reads several places side by side, each on and on, which
// memory gives more to than to one place or to many short ones.
//
// Others can take what is left of a share, a slice at a time. Slices are half
// of what is left, at most `slice_tiles`, down to a unit of each stream: large
// ones are read faster, and the last thread is waited for as long as a small
// one takes. What is not in streams, at the end, is in small slices too.
//
// Streams begin at different places of their pages, if they are long enough for
// some units less: those that go on to another page at the same time all wait.
//
// Measured on Granite Rapids with two threads and one row, by tokens/s of Gemma
// 3 270M and a 1B shape: streams instead of sets of four tiles 1.02 and 1.04,
// large slices first and different places 1.03 and 1.04, of which the places
// 1.015 and 1.0. Immutable.
class TileSlices {
 public:
  // At least one of each.
  TileSlices(const TileRun& tiles, int64_t slice_tiles, int64_t streams,
             int64_t threads);

  // As many for each share.
  int64_t per_share() const {
    return static_cast<int64_t>(cuts_.size()) - 1 + rests_;
  }
  int64_t count() const { return threads_ * per_share(); }
  // 0 <= i < count(). May be of no tiles.
  TileSlice operator[](int64_t i) const;
  // Of the first slice of a share, where the tiles begin at `tiles`.
  kernels::FirstReads FirstOf(int64_t share, const uint8_t* tiles) const;

 private:
  // Units of a stream of a share of so many.
  int64_t Run(int64_t share_units) const;

  int64_t units_, unit_, tile_bytes_, streams_, threads_;
  int64_t less_ = 0;           // units that each stream leaves to the rest
  std::vector<int64_t> cuts_;  // first units of a stream's slices, and its end
  int64_t rest_units_;         // of a slice of the rest
  int64_t rests_ = 0;          // such slices
};

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_TILE_SLICES_H_
