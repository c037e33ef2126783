#include "kernels/base/slab_buffer.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace onegrid::kernels {
namespace {

using Buffers = std::vector<std::unique_ptr<SlabBuffer>>;

Buffers Some(size_t count, size_t size) {
  Buffers buffers;
  for (size_t i = 0; i < count; ++i) {
    buffers.push_back(std::make_unique<SlabBuffer>(size));
  }
  return buffers;
}

// Sizes of this test alone: slabs outlive their buffers.
TEST(SlabBufferTest, BuffersStartOnALineAreZeroedAndDoNotOverlap) {
  for (const size_t size : {1, 64, 100, 34304, 5 << 20}) {
    const Buffers buffers = Some(7, size);
    for (size_t i = 0; i < buffers.size(); ++i) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(buffers[i]->data()) % 64, 0);
      EXPECT_EQ(buffers[i]->size(), size);
      for (size_t at = 0; at < size; at += 61) {
        ASSERT_EQ(buffers[i]->data()[at], 0);
      }
      std::memset(buffers[i]->data(), static_cast<int>(i + 1), size);
    }
    for (size_t i = 0; i < buffers.size(); ++i) {
      for (size_t at = 0; at < size; at += 61) {
        ASSERT_EQ(buffers[i]->data()[at], i + 1) << size << " " << i;
      }
      EXPECT_EQ(buffers[i]->data()[size - 1], i + 1);
    }
  }
}

TEST(SlabBufferTest, WhatADeadOneHeldIsZeroedForTheNext) {
  constexpr size_t kSize = 20032;
  Buffers buffers = Some(3, kSize);
  uint8_t* const at = buffers[1]->data();
  std::memset(at, 7, kSize);
  buffers[1].reset();
  const SlabBuffer next(kSize);
#ifndef __SANITIZE_ADDRESS__
  EXPECT_EQ(next.data(), at);
#endif
  for (size_t i = 0; i < kSize; ++i) ASSERT_EQ(next.data()[i], 0);
}

#ifndef __SANITIZE_ADDRESS__
TEST(SlabBufferTest, MemoryGoesBackWhenASlabIsEmpty) {
  constexpr size_t kSize = 1 << 20;
  constexpr size_t kSlab = 4 << 20;
  EXPECT_EQ(SlabBytes(kSize), 0);
  Buffers buffers = Some(12, kSize);
  EXPECT_EQ(SlabBytes(kSize), 3 * kSlab);
  // They were filled one after the other. The first of each is left.
  const uint8_t* lowest = buffers[0]->data();
  for (size_t i = 0; i < buffers.size(); ++i) {
    lowest = std::min<const uint8_t*>(lowest, buffers[i]->data());
    if (i % 4 != 0) buffers[i].reset();
  }
  EXPECT_EQ(SlabBytes(kSize), 3 * kSlab);
  // The gaps are filled before there is another slab, the lowest first.
  {
    const Buffers more = Some(9, kSize);
    EXPECT_EQ(SlabBytes(kSize), 3 * kSlab);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_LT(more[i]->data() - lowest, int64_t{kSlab});
    }
  }
  // The last is kept for what comes.
  buffers.clear();
  EXPECT_EQ(SlabBytes(kSize), kSlab);
  const Buffers again = Some(4, kSize);
  EXPECT_EQ(SlabBytes(kSize), kSlab);
}
#endif

TEST(SlabBufferTest, ThreadsMakeAndDestroyThemAtOnce) {
  std::vector<std::thread> threads;
  for (uint8_t t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int round = 0; round < 20; ++round) {
        const Buffers mine = Some(50, 30016);
        for (const auto& buffer : mine) std::memset(buffer->data(), t, 30016);
        for (const auto& buffer : mine) {
          for (int at = 0; at < 30016; at += 500) {
            ASSERT_EQ(buffer->data()[at], t);
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace onegrid::kernels
