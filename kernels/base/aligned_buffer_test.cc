#include "kernels/base/aligned_buffer.h"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <utility>

#include "gtest/gtest.h"

namespace onegrid::kernels {
namespace {

TEST(AlignedBufferTest, IsAlignedAndZeroed) {
  for (const Lifetime lifetime : {Lifetime::kShort, Lifetime::kLong}) {
    for (const size_t n : {1, 15, 16, 17, 1023, 2 << 20}) {
      const AlignedBuffer<float> buffer(n, lifetime);
      EXPECT_EQ(buffer.size(), n);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
      for (const float v : buffer) ASSERT_EQ(v, 0.0f);
    }
  }
}

TEST(AlignedBufferTest, LongLivedOnesAreMovedOverOthers) {
  AlignedBuffer<int> small(3, Lifetime::kLong), other(5, Lifetime::kLong);
  small[2] = 7;
  other[4] = 8;
  AlignedBuffer<int> of_its_own(9);
  of_its_own = std::move(small);
  EXPECT_EQ(of_its_own[2], 7);
  of_its_own = std::move(other);
  EXPECT_EQ(of_its_own[4], 8);
  other = AlignedBuffer<int>(2);
  EXPECT_EQ(other[1], 0);
}

TEST(AlignedBufferTest, EmptyHasNoElements) {
  const AlignedBuffer<int8_t> buffer(0);
  EXPECT_TRUE(buffer.empty());
  EXPECT_EQ(buffer.begin(), buffer.end());
}

TEST(AlignedBufferTest, MoveLeavesTheSourceEmpty) {
  AlignedBuffer<int> from(3);
  from[2] = 7;
  AlignedBuffer<int> to(std::move(from));
  EXPECT_EQ(to[2], 7);
  EXPECT_TRUE(from.empty());  // NOLINT(bugprone-use-after-move)
  AlignedBuffer<int> assigned;
  assigned = std::move(to);
  EXPECT_EQ(assigned.size(), 3u);
  EXPECT_TRUE(to.empty());  // NOLINT(bugprone-use-after-move)
}

TEST(AlignedBufferTest, ByteCountThatOverflowsThrows) {
  const size_t n = std::numeric_limits<size_t>::max() / sizeof(double) + 2;
  EXPECT_THROW(AlignedBuffer<double>{n}, std::bad_alloc);
}

}  // namespace
}  // namespace onegrid::kernels
