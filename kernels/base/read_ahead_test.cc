// Goal: a thread is told to read what followed last time, once and in bounds,
// whatever it was.
#include "kernels/base/read_ahead.h"

#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace onegrid::kernels {
namespace {

// What a loop is said to read. Nobody reads it, so it need not be there.
const uint8_t* Place(int64_t at) {
  return reinterpret_cast<const uint8_t*>(at << 24);
}

// A loop that reads `what`, and in it each thread so many bytes of two places.
void Begin(ReadAhead& ahead, int64_t what, int64_t bytes, int places = 2) {
  ahead.Begin(Place(what), [&](int thread) {
    return FirstReads{Place(what) + thread * 4096, 1 << 20, bytes, places};
  });
}

// Lines of each place that `thread` can fetch now.
int64_t Fetched(ReadAhead& ahead, int thread) {
  int64_t lines = 0;
  while (ahead.Fetch(thread)) ++lines;
  return lines;
}

TEST(ReadAheadTest, FetchesWhatFollowedTheLastTime) {
  ReadAhead ahead(2);
  EXPECT_EQ(Fetched(ahead, 0), 0);
  Begin(ahead, 1, 640);
  EXPECT_EQ(Fetched(ahead, 1), 0);  // Nothing followed it yet.
  Begin(ahead, 2, 6400);
  EXPECT_EQ(Fetched(ahead, 1), 0);
  Begin(ahead, 1, 640);  // 2 followed it.
  EXPECT_EQ(Fetched(ahead, 1), 100);
  EXPECT_EQ(Fetched(ahead, 0), 100);
  EXPECT_EQ(Fetched(ahead, 1), 0);  // All of it is fetched.
  Begin(ahead, 2, 6400);
  EXPECT_EQ(Fetched(ahead, 1), 10);
}

TEST(ReadAheadTest, WhatFollowsCanChange) {
  ReadAhead ahead(1);
  for (const int64_t what : {1, 2, 1, 3}) Begin(ahead, what, 64 * what);
  Begin(ahead, 1, 64);
  EXPECT_EQ(Fetched(ahead, 0), 3);
}

// One that fetches only a part before the loop it waits for begins goes on with
// what follows that one.
TEST(ReadAheadTest, ANewLoopEndsWhatIsLeftOfTheLast) {
  ReadAhead ahead(1);
  for (const int64_t what : {1, 2, 1}) Begin(ahead, what, 640 * what);
  EXPECT_TRUE(ahead.Fetch(0));
  Begin(ahead, 2, 1280);
  EXPECT_EQ(Fetched(ahead, 0), 10);
}

TEST(ReadAheadTest, FetchesAsMuchAsACacheHoldsAtMost) {
  for (const int places : {1, 2, 4}) {
    ReadAhead ahead(1);
    for (int i = 0; i < 2; ++i) Begin(ahead, 1, int64_t{1} << 40, places);
    EXPECT_EQ(Fetched(ahead, 0), ReadAhead::kMostBytes / places / 64);
  }
}

TEST(ReadAheadTest, NothingIsFetchedWhereNothingIsRead) {
  ReadAhead ahead(1);
  for (const int places : {0, -1, 2}) {
    for (const int64_t bytes : {int64_t{0}, int64_t{-64}}) {
      for (int i = 0; i < 2; ++i) Begin(ahead, 1, bytes, places);
      EXPECT_EQ(Fetched(ahead, 0), 0);
    }
  }
}

TEST(ReadAheadTest, ForgetsWhenThereIsTooMuch) {
  ReadAhead ahead(1);
  for (int64_t what = 1; what < 10000; ++what) Begin(ahead, what, 64);
  Begin(ahead, 1, 64);  // Followed by 2, long ago.
  EXPECT_EQ(Fetched(ahead, 0), 0);
  Begin(ahead, 9998, 64);
  EXPECT_EQ(Fetched(ahead, 0), 1);
}

TEST(ReadAheadTest, ThreadsFetchWhileLoopsBegin) {
  ReadAhead ahead(2);
  std::thread reader([&] {
    for (int i = 0; i < 20000; ++i) ahead.Fetch(1);
  });
  for (int64_t i = 0; i < 2000; ++i) Begin(ahead, 1 + i % 3, 640);
  reader.join();
  Begin(ahead, 1, 640);
  EXPECT_EQ(Fetched(ahead, 1), 10);
}

}  // namespace
}  // namespace onegrid::kernels
