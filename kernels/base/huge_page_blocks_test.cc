#include "kernels/base/huge_page_blocks.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace onegrid::kernels {
namespace {

TEST(HugePageBlocksTest, BuffersStartOnALineAndDoNotOverlap) {
  std::vector<std::shared_ptr<uint8_t>> buffers;
  const std::vector<size_t> sizes = {1, 64, 65, 4096, 3 << 20, 0, 100};
  for (size_t i = 0; i < sizes.size(); ++i) {
    buffers.push_back(AllocateOnHugePages(sizes[i]));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffers[i].get()) % 64, 0);
    std::memset(buffers[i].get(), static_cast<int>(i + 1), sizes[i]);
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    for (size_t at = 0; at < sizes[i]; ++at) {
      ASSERT_EQ(buffers[i].get()[at], i + 1) << i << " " << at;
    }
  }
}

TEST(HugePageBlocksTest, ABufferMayFillABlockAndOutlastsItsNeighbours) {
  auto small = AllocateOnHugePages(100);
  *small = 7;
  for (int i = 0; i < 3; ++i) {
    auto whole = AllocateOnHugePages(kHugePageBlockBytes);
    whole.get()[kHugePageBlockBytes - 1] = 1;
  }
  auto next = AllocateOnHugePages(100);
  std::memset(next.get(), 8, 100);
  EXPECT_EQ(*small, 7);
}

TEST(HugePageBlocksTest, RefusesMoreThanABlock) {
  EXPECT_DEATH(AllocateOnHugePages(kHugePageBlockBytes + 1), "");
}

TEST(HugePageBlocksTest, ThreadsGetBuffersOfTheirOwn) {
  std::vector<std::thread> threads;
  for (uint8_t t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      std::vector<std::shared_ptr<uint8_t>> mine;
      for (int i = 0; i < 200; ++i) {
        mine.push_back(AllocateOnHugePages(1000));
        std::memset(mine.back().get(), t, 1000);
      }
      for (const auto& buffer : mine) {
        for (int at = 0; at < 1000; ++at) ASSERT_EQ(buffer.get()[at], t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace onegrid::kernels
