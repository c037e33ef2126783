#include "kernels/base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace onegrid::kernels {
namespace {

TEST(ThreadPoolTest, EveryIndexIsVisitedOnce) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (int64_t n : {0, 1, 2, 31, 129, 1000}) {
      for (int64_t grain : {1, 3, 128, 5000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
        pool.ParallelFor(n, grain, [&](int64_t begin, int64_t end, int worker) {
          EXPECT_LT(begin, end);
          EXPECT_GE(worker, 0);
          EXPECT_LT(worker, threads);
          for (int64_t i = begin; i < end; ++i) {
            ++visits[static_cast<size_t>(i)];
          }
        });
        for (const auto& count : visits) EXPECT_EQ(count, 1);
      }
    }
  }
}

TEST(ThreadPoolTest, ResultsOfManyShortLoopsAreVisibleToTheCaller) {
  ThreadPool pool(4);
  std::vector<int64_t> values(64);
  for (int64_t loop = 0; loop < 5000; ++loop) {
    pool.ParallelFor(64, 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        values[static_cast<size_t>(i)] += i;
      }
    });
    ASSERT_EQ(values[63], 63 * (loop + 1));
    ASSERT_EQ(values[0], 0);
  }
}

TEST(ThreadPoolTest, NoTwoRangesOfOneWorkerRunAtOnce) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> running(4);
  pool.ParallelFor(2000, 1, [&](int64_t, int64_t, int worker) {
    auto& mine = running[static_cast<size_t>(worker)];
    EXPECT_EQ(mine.fetch_add(1), 0);
    EXPECT_EQ(mine.fetch_sub(1), 1);
  });
}

TEST(ThreadPoolTest, LoopInsideALoopRunsOnItsThread) {
  ThreadPool pool(3);
  std::atomic<int64_t> total{0};
  EXPECT_FALSE(pool.InLoop());
  pool.ParallelFor(30, 1, [&](int64_t, int64_t, int outer) {
    EXPECT_TRUE(pool.InLoop());
    pool.ParallelFor(10, 1, [&](int64_t begin, int64_t end, int inner) {
      EXPECT_EQ(inner, outer);
      total += end - begin;
    });
  });
  EXPECT_FALSE(pool.InLoop());
  EXPECT_EQ(total, 300);
}

TEST(ThreadPoolTest, SeveralCallersTakeTurns) {
  ThreadPool pool(3);
  std::atomic<int64_t> total{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int loop = 0; loop < 200; ++loop) {
        pool.ParallelFor(20, 1, [&](int64_t begin, int64_t end, int) {
          total += end - begin;
        });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total, 4 * 200 * 20);
}

// The ranges of a thread that does not begin are taken by the others, so each
// waits in its first one until all have begun.
TEST(ThreadPoolTest, LoopsThatSayWhatTheyReadAreLikeOthers) {
  ThreadPool pool(3);
  const std::vector<uint8_t> memory(1 << 20);
  std::atomic<int64_t> sum{0};
  const auto run = [&] {
    for (int64_t loop = 0; loop < 300; ++loop) {
      const uint8_t* reads = memory.data() + loop % 3;
      const auto first = [&](int worker) {
        return FirstReads{reads + worker * 4096, 65536, 4096, 4};
      };
      pool.ParallelFor(
          64, 4, {reads, first},
          [&](int64_t begin, int64_t end, int) { sum += end - begin; });
      if (loop % 100 == 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }
  };
  std::thread other(run);
  run();
  other.join();
  EXPECT_EQ(sum, 2 * 300 * 64);
}

TEST(ThreadPoolTest, EachThreadBeginsWithItsOwnShareInOrder) {
  ThreadPool pool(3);
  for (const int64_t n : {3, 7, 31}) {
    std::vector<std::vector<int64_t>> taken(3);
    std::atomic<int> begun{0};
    pool.ParallelFor(n, 1, [&](int64_t begin, int64_t, int worker) {
      auto& mine = taken[static_cast<size_t>(worker)];
      mine.push_back(begin);
      if (mine.size() == 1) ++begun;
      while (begun < 3) std::this_thread::yield();
    });
    for (int64_t worker = 0; worker < 3; ++worker) {
      const auto& mine = taken[static_cast<size_t>(worker)];
      ASSERT_FALSE(mine.empty());
      EXPECT_EQ(mine[0], n * worker / 3) << n;
      for (size_t i = 1; i < mine.size(); ++i) {
        const bool own =
            mine[i] >= n * worker / 3 && mine[i] < n * (worker + 1) / 3;
        if (own) {
          EXPECT_GT(mine[i], mine[i - 1]) << n;
        }
      }
    }
  }
}

// Long enough for every thread to have gone to sleep.
TEST(ThreadPoolTest, SleepingThreadsWakeUpAndShutDown) {
  for (int round = 0; round < 3; ++round) {
    ThreadPool pool(3);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::atomic<int> ranges{0};
    pool.ParallelFor(8, 1, [&](int64_t, int64_t, int) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      ++ranges;
    });
    EXPECT_EQ(ranges, 8);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace
}  // namespace onegrid::kernels
