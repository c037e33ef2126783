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
            const TileSlices slices({units * unit, 10368, unit}, slice_tiles,
                                    streams, threads);
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
TEST(TileSlicesTest, StreamsGoOnFromSliceToSliceAndTheseBecomeSmall) {
  const TileSlices slices({48, 1000}, 8, 4, 2);
  ASSERT_EQ(slices.per_share(), 4);
  EXPECT_EQ(TilesOf(slices[4]),
            (std::vector<int64_t>{24, 25, 30, 31, 36, 37, 42, 43}));
  EXPECT_EQ(TilesOf(slices[5]),
            (std::vector<int64_t>{26, 27, 32, 33, 38, 39, 44, 45}));
  EXPECT_EQ(TilesOf(slices[6]), (std::vector<int64_t>{28, 34, 40, 46}));
  EXPECT_EQ(TilesOf(slices[7]), (std::vector<int64_t>{29, 35, 41, 47}));
}

// 2 threads, 48 tiles, 4 streams of 6 tiles for each: of their first slices.
TEST(TileSlicesTest, SaysWhatAShareReadsFirst) {
  const TileSlices slices({48, 1000}, 8, 4, 2);
  const std::vector<uint8_t> tiles(48000);
  for (const int share : {0, 1}) {
    const kernels::FirstReads first = slices.FirstOf(share, tiles.data());
    EXPECT_EQ(first.at, tiles.data() + share * 24000);
    EXPECT_EQ(first.apart, 6000);
    EXPECT_EQ(first.bytes, 2000);
    EXPECT_EQ(first.places, 4);
  }
}

// What does not fill four streams is one, in slices of at most 64 KB.
TEST(TileSlicesTest, TheRestOfAShareIsOneStream) {
  const TileSlices slices({11, 30000}, 100, 4, 1);
  ASSERT_EQ(slices.count(), 4);
  EXPECT_EQ(TilesOf(slices[0]), (std::vector<int64_t>{0, 2, 4, 6}));
  EXPECT_EQ(TilesOf(slices[1]), (std::vector<int64_t>{1, 3, 5, 7}));
  EXPECT_EQ(TilesOf(slices[2]), (std::vector<int64_t>{8, 9}));
  EXPECT_EQ(TilesOf(slices[3]), (std::vector<int64_t>{10}));
  EXPECT_EQ(slices[2].streams, 1);
}

// 16 tiles of 5196 bytes are no multiple of a page, 16 of 5376 are.
TEST(TileSlicesTest, StreamsBeginAtDifferentPlacesOfAPage) {
  const TileSlices slices({64, 4096 + 1100}, 100, 4, 1);
  EXPECT_EQ(slices[0].apart, 16);
  const TileSlices moved({64, 4096 + 1280}, 100, 4, 1);
  EXPECT_EQ(moved[0].apart, 15);
  EXPECT_EQ(moved[moved.count() - 1].tile + moved[moved.count() - 1].tiles, 64);
  // Just before a page's end is too near to the next one's beginning.
  const TileSlices near({64, 4096 + 248}, 100, 4, 1);
  EXPECT_EQ(near[0].apart, 15);
  // Too short to leave any, though three tiles would do.
  const TileSlices brief({16, 4096 + 1024}, 100, 4, 1);
  EXPECT_EQ(brief[0].apart, 4);
}

// The last slices of large tiles are of one stream.
TEST(TileSlicesTest, NoThreadWaitsForMuchOfLargeTiles) {
  const TileSlices slices({96, 110592}, 100, 4, 2);
  int64_t last = 0;
  for (int64_t i = slices.per_share() - 4; i < slices.per_share(); ++i) {
    EXPECT_EQ(slices[i].size(), 1);
    last += slices[i].size();
  }
  EXPECT_EQ(last, 4);
}

TEST(TileSlicesTest, APartIsOfEachStream) {
  const TileSlice slice = {10, 4, 2, 20};
  EXPECT_EQ(TilesOf(slice.Part(1, 2)), (std::vector<int64_t>{11, 12, 31, 32}));
}

}  // namespace
}  // namespace onegrid::cpu
