// How threads share the tiles of a weight matrix that few rows of activations
// are multiplied with.
#ifndef KERNELS_CPU_TILE_SLICES_H_
#define KERNELS_CPU_TILE_SLICES_H_

#include <cstdint>

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

// The tiles are parted into equal shares, one after the other, a share into
// streams, one after the other, and the streams of a share into slices. So a
// thread that takes the slices of a share in turn reads several places side by
// side, each on and on, which memory gives more to than to one place or to many
// short ones; and others can take what is left of a share, a slice at a time.
// The last slice of a share is what does not fill all streams.
//
// Measured on Granite Rapids with two threads and one row: streams of a whole
// share are read 3 to 8 % faster than sets of four tiles side by side, and the
// size of slices does not matter. Immutable.
class TileSlices {
 public:
  // At least one of each. Of `unit` tiles, which divide `tiles`, none is parted
  // from others. A slice has at most `slice_tiles`, or a unit of each stream.
  TileSlices(int64_t tiles, int64_t unit, int64_t slice_tiles, int64_t streams,
             int64_t threads);

  // As many for each share.
  int64_t per_share() const { return per_share_; }
  int64_t count() const { return threads_ * per_share_; }
  // 0 <= i < count(). May be of no tiles.
  TileSlice operator[](int64_t i) const;

 private:
  int64_t units_, unit_, streams_, threads_, per_share_;
};

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_TILE_SLICES_H_
