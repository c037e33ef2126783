// Goal: slices cover all tiles once, in equal shares whose streams go on and
// on, whatever the numbers are.
#include "kernels/cpu/tile_slices.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace onegrid::cpu {
namespace {

// Each tile of a slice, stream by stream.
std::vector<int64_t> TilesOf(const TileSlice& slice) {
  std::vector<int64_t> tiles;
  for (int64_t s = 0; s < slice.streams; ++s) {
    for (int64_t t = 0; t < slice.tiles; ++t) {
      tiles.push_back(slice.tile + s * slice.apart + t);
    }
  }
  return tiles;
}

TEST(TileSlicesTest, CoverAllTilesOnceInEqualShares) {
  for (const int64_t units : {1, 2, 3, 7, 8, 9, 40, 96, 1001}) {
    for (const int64_t unit : {1, 2}) {
      for (const int64_t slice_tiles : {1, 3, 8, 64, 100000}) {
        for (const int64_t streams : {1, 2, 4}) {
          for (const int64_t threads : {1, 2, 3, 16}) {
            const TileSlices slices(units * unit, unit, slice_tiles, streams,
                                    threads);
            std::vector<int> seen(static_cast<size_t>(units * unit));
            std::vector<int64_t> shares(static_cast<size_t>(threads));
            ASSERT_EQ(slices.count() % threads, 0);
            for (int64_t i = 0; i < slices.count(); ++i) {
              const TileSlice slice = slices[i];
              EXPECT_EQ(slice.tile % unit, 0);
              EXPECT_EQ(slice.tiles % unit, 0);
              EXPECT_LE(slice.size(), std::max(slice_tiles, streams * unit));
              for (const int64_t tile : TilesOf(slice)) {
                ++seen.at(static_cast<size_t>(tile));
              }
              shares[static_cast<size_t>(i * threads / slices.count())] +=
                  slice.size();
            }
            EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), units * unit);
            const auto [least, most] =
                std::minmax_element(shares.begin(), shares.end());
            EXPECT_LE(*most - *least, unit);
          }
        }
      }
    }
  }
}

// 2 threads, 48 tiles, 4 streams of 6 tiles for each.
TEST(TileSlicesTest, StreamsGoOnFromSliceToSlice) {
  const TileSlices slices(48, 1, 8, 4, 2);
  ASSERT_EQ(slices.count(), 8);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(
        TilesOf(slices[4 + i]),
        (std::vector<int64_t>{24 + 2 * i, 25 + 2 * i, 30 + 2 * i, 31 + 2 * i,
                              36 + 2 * i, 37 + 2 * i, 42 + 2 * i, 43 + 2 * i}));
  }
  EXPECT_EQ(slices[7].size(), 0);
}

// What does not fill four streams is one.
TEST(TileSlicesTest, TheRestOfAShareIsOneStream) {
  const TileSlices slices(11, 1, 100, 4, 1);
  ASSERT_EQ(slices.count(), 2);
  EXPECT_EQ(TilesOf(slices[0]), (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(TilesOf(slices[1]), (std::vector<int64_t>{8, 9, 10}));
  EXPECT_EQ(slices[1].streams, 1);
}

TEST(TileSlicesTest, APartIsOfEachStream) {
  const TileSlice slice = {10, 4, 2, 20};
  EXPECT_EQ(TilesOf(slice.Part(1, 2)), (std::vector<int64_t>{11, 12, 31, 32}));
}

}  // namespace
}  // namespace onegrid::cpu
