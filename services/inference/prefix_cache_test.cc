#include "services/inference/prefix_cache.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "kernels/cpu/kv_cache.h"

namespace onegrid::inference {
namespace {

using cpu::kPageTokens;

constexpr int64_t kPageBytes = 128;

std::vector<cpu::KvPage> Pages(size_t count) {
  std::vector<cpu::KvPage> pages;
  for (size_t i = 0; i < count; ++i) {
    pages.push_back(std::make_shared<cpu::KvPage::element_type>(kPageBytes));
  }
  return pages;
}

// One global and two sliding layers.
KvBlock Block() { return {Pages(1), Pages(2)}; }
constexpr int64_t kBlockBytes = 3 * kPageBytes;

// `blocks` blocks, all of one token each.
std::vector<int32_t> Tokens(const std::vector<int32_t>& blocks) {
  std::vector<int32_t> tokens;
  for (const int32_t token : blocks) tokens.insert(tokens.end(), 64, token);
  return tokens;
}

// Adds a block for each, one behind the other.
PrefixCache::BlockId AddAll(PrefixCache& cache,
                            const std::vector<int32_t>& blocks) {
  PrefixCache::BlockId last = PrefixCache::kRoot;
  for (const int32_t token : blocks) {
    if (!cache.Holds(last)) return last;
    last = cache.Add(last, Tokens({token}), Block());
  }
  return last;
}

size_t Found(PrefixCache& cache, const std::vector<int32_t>& blocks) {
  return cache.Find(Tokens(blocks)).blocks.size();
}

// Behind n blocks it shows the last of them only.
constexpr int64_t kWindow = kPageTokens;

TEST(PrefixCacheTest, FindsTheLongestCommonBeginning) {
  PrefixCache cache(1 << 20, kWindow);
  const auto last = AddAll(cache, {1, 2, 3});
  AddAll(cache, {1, 2, 4});
  EXPECT_EQ(Found(cache, {1, 2, 3, 5}), 3);
  EXPECT_EQ(Found(cache, {1, 2, 5, 3}), 2);
  EXPECT_EQ(Found(cache, {2, 3}), 0);
  EXPECT_EQ(cache.Find(Tokens({1, 2, 3})).last, last);
  // A block that is not whole is not there.
  std::vector<int32_t> tokens = Tokens({1, 2});
  tokens.pop_back();
  EXPECT_EQ(cache.Find(tokens).blocks.size(), 1);
  tokens = Tokens({1, 2});
  tokens.back() = 7;
  EXPECT_EQ(cache.Find(tokens).blocks.size(), 1);
  EXPECT_EQ(cache.bytes(), 4 * kBlockBytes);
}

// A block that begins with `count` times `token` and goes on with others.
std::vector<int32_t> Mixed(int32_t token, size_t count, int32_t others) {
  std::vector<int32_t> tokens(count, token);
  tokens.resize(kPageTokens, others);
  return tokens;
}

TEST(PrefixCacheTest, FindsTheTailWithMostInCommon) {
  PrefixCache cache(1 << 20, kWindow);
  const auto first = AddAll(cache, {1});
  for (const size_t count : {9, 20, 30}) {
    for (const int32_t others : {0, 9}) {
      cache.Add(first, Mixed(2, count, others), Block());
    }
  }
  const auto tail = [&](std::vector<int32_t> rest, const char* salt = "") {
    std::vector<int32_t> tokens = Tokens({1});
    tokens.insert(tokens.end(), rest.begin(), rest.end());
    EXPECT_EQ(cache.Find(tokens, salt).tail_tokens, 0);
    const PrefixCache::Match match = cache.Find(tokens, salt, true);
    EXPECT_EQ(cache.Count(tokens, salt, true),
              static_cast<int64_t>(match.blocks.size()) * kPageTokens +
                  match.tail_tokens);
    EXPECT_EQ(match.tail.global.size(), match.tail_tokens > 0 ? 1 : 0);
    EXPECT_EQ(match.tail.sliding.size(), match.tail_tokens > 0 ? 2 : 0);
    return match.tail_tokens;
  };
  EXPECT_EQ(tail(Mixed(2, 25, 3)), 25);
  EXPECT_EQ(tail(Mixed(2, 40, 3)), 30);
  EXPECT_EQ(tail(Mixed(2, 30, 3)), 30);
  EXPECT_EQ(tail(std::vector<int32_t>(20, 2)), 20);
  EXPECT_EQ(tail(Mixed(2, 8, 3)), 8);
  // Too little, nothing, and what belongs to others.
  EXPECT_EQ(tail(Mixed(2, 7, 3)), 0);
  EXPECT_EQ(tail({}), 0);
  EXPECT_EQ(tail(Mixed(2, 25, 3), "other"), 0);
  // A whole block is none.
  EXPECT_EQ(tail(Mixed(2, 20, 0)), 0);
  // In front of all others, and behind them.
  EXPECT_EQ(cache.Find(Mixed(1, 10, 0), "", true).tail_tokens, 10);
  EXPECT_EQ(cache.Find(Mixed(1, 10, 5), "", true).tail_tokens, 10);
}

TEST(PrefixCacheTest, ATailNeedsItsWindowAndCountsAsUsed) {
  PrefixCache cache(3 * kBlockBytes, kWindow);
  KvBlock passed = Block();
  passed.sliding[0] = nullptr;
  cache.Add(PrefixCache::kRoot, Mixed(1, 30, 2), passed);
  EXPECT_EQ(cache.Find(Mixed(1, 30, 3), "", true).tail_tokens, 0);
  // The next best one has it.
  cache.Add(PrefixCache::kRoot, Mixed(1, 10, 2), Block());
  EXPECT_EQ(cache.Find(Mixed(1, 30, 3), "", true).tail_tokens, 10);
  cache.Add(PrefixCache::kRoot, Mixed(4, 64, 4), Block());
  EXPECT_EQ(cache.Find(Mixed(1, 30, 3), "", true).tail_tokens, 10);
  cache.Add(PrefixCache::kRoot, Mixed(5, 64, 5), Block());
  cache.Add(PrefixCache::kRoot, Mixed(6, 64, 6), Block());
  EXPECT_EQ(Found(cache, {4}), 0);
  EXPECT_EQ(cache.Find(Mixed(1, 30, 3), "", true).tail_tokens, 10);
}

TEST(PrefixCacheTest, GivesSlidingPagesOnlyWhereTheWindowSeesThem) {
  // A query behind n blocks sees 64 tokens before itself of 65.
  PrefixCache cache(1 << 20, kWindow + 1);
  AddAll(cache, {1, 2, 3});
  const PrefixCache::Match match = cache.Find(Tokens({1, 2, 3}));
  ASSERT_EQ(match.blocks.size(), 3);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(match.blocks[i].global.size(), 1);
    EXPECT_EQ(match.blocks[i].sliding.size(), i < 2 ? 0 : 2) << i;
  }
  // One token more reaches into the block before.
  PrefixCache wide(1 << 20, kWindow + 2);
  AddAll(wide, {1, 2, 3});
  EXPECT_EQ(wide.Find(Tokens({1, 2, 3})).blocks[1].sliding.size(), 2);
}

TEST(PrefixCacheTest, BlocksWithoutTheirWindowAreNoEnd) {
  PrefixCache cache(1 << 20, kWindow);
  const auto first = cache.Add(PrefixCache::kRoot, Tokens({1}), Block());
  KvBlock passed = Block();
  passed.sliding[1] = nullptr;
  const auto second = cache.Add(first, Tokens({2}), passed);
  EXPECT_EQ(Found(cache, {1, 2}), 1);
  // Behind one that has it, it does not matter.
  cache.Add(second, Tokens({3}), Block());
  EXPECT_EQ(Found(cache, {1, 2, 3}), 3);
  // What was missing is taken when it comes.
  cache.Add(first, Tokens({2}), Block());
  EXPECT_EQ(Found(cache, {1, 2}), 2);
}

TEST(PrefixCacheTest, WithoutSlidingLayersEveryBlockIsAnEnd) {
  PrefixCache cache(1 << 20, /*window=*/0);
  auto last = PrefixCache::kRoot;
  for (const int32_t token : {1, 2, 3}) {
    last = cache.Add(last, Tokens({token}), {Pages(1), {}});
  }
  EXPECT_EQ(Found(cache, {1, 2, 3}), 3);
}

TEST(PrefixCacheTest, ForgetsWhatWasNotUsedForLongest) {
  PrefixCache cache(4 * kBlockBytes, kWindow);
  AddAll(cache, {1, 2});
  AddAll(cache, {3, 4});
  EXPECT_EQ(Found(cache, {1, 2}), 2);
  AddAll(cache, {5, 6});
  EXPECT_LE(cache.bytes(), 4 * kBlockBytes);
  EXPECT_EQ(Found(cache, {1, 2}), 2);
  EXPECT_EQ(Found(cache, {5, 6}), 2);
  EXPECT_EQ(Found(cache, {3, 4}), 0);
}

TEST(PrefixCacheTest, LosesWindowsInsideBeforeBlocks) {
  PrefixCache cache(3 * kBlockBytes, kWindow);
  AddAll(cache, {1, 2, 3});
  // Uses the last window only; then there is room for one of three.
  EXPECT_EQ(Found(cache, {1, 2, 3}), 3);
  cache.Add(PrefixCache::kRoot, Tokens({9}), {Pages(4), {}});
  EXPECT_EQ(Found(cache, {1, 2, 3}), 3);
  EXPECT_EQ(Found(cache, {1, 2, 7}), 0);
}

TEST(PrefixCacheTest, ABlockMayBeForgottenAtOnce) {
  PrefixCache cache(kBlockBytes - 1, kWindow);
  EXPECT_TRUE(cache.Holds(AddAll(cache, {1})));
  EXPECT_EQ(cache.bytes(), kPageBytes);  // without the window
  EXPECT_EQ(Found(cache, {1}), 0);
  PrefixCache none(0, kWindow);
  EXPECT_FALSE(none.Holds(AddAll(none, {1})));
  EXPECT_EQ(none.bytes(), 0);
}

TEST(PrefixCacheTest, OtherSaltsHaveOtherBlocks) {
  PrefixCache cache(1 << 20, kWindow);
  const auto add = [&](const char* salt) {
    const auto first =
        cache.Add(PrefixCache::kRoot, Tokens({1}), Block(), salt);
    cache.Add(first, Tokens({2}), Block(), salt);
  };
  add("a");
  EXPECT_EQ(cache.Find(Tokens({1, 2}), "a").blocks.size(), 2);
  EXPECT_EQ(cache.Find(Tokens({1, 2}), "b").blocks.size(), 0);
  EXPECT_EQ(cache.Find(Tokens({1, 2})).blocks.size(), 0);
  add("b");
  EXPECT_EQ(cache.bytes(), 4 * kBlockBytes);
  EXPECT_NE(cache.Find(Tokens({1, 2}), "a").last,
            cache.Find(Tokens({1, 2}), "b").last);
  // The salt goes with its last block.
  cache.GiveUp(cache.bytes());
  EXPECT_EQ(cache.bytes(), 0);
  EXPECT_EQ(cache.Find(Tokens({1, 2}), "a").blocks.size(), 0);
}

TEST(PrefixCacheTest, GivesUpWhatNoSequenceUsesAndWasNotUsedForLongest) {
  PrefixCache cache(1 << 20, kWindow);
  AddAll(cache, {1, 2});
  AddAll(cache, {3, 4});
  AddAll(cache, {5, 6});
  EXPECT_EQ(cache.idle_bytes(), 6 * kBlockBytes);
  {
    // A sequence begins with 1 and 2, and sees the window of the latter only.
    const PrefixCache::Match used = cache.Find(Tokens({1, 2}));
    EXPECT_EQ(cache.idle_bytes(), 4 * kBlockBytes + 2 * kPageBytes);
    EXPECT_EQ(Found(cache, {3, 4}), 2);
    // Windows inside, then the last one of what was used before both.
    cache.GiveUp(8 * kPageBytes);
    EXPECT_EQ(Found(cache, {5, 6}), 0);
    EXPECT_EQ(Found(cache, {3, 4}), 2);
    // More than there is.
    cache.GiveUp(1 << 20);
    EXPECT_EQ(cache.bytes(), 2 * kBlockBytes - 2 * kPageBytes);
    EXPECT_EQ(cache.idle_bytes(), 0);
    EXPECT_EQ(Found(cache, {1, 2}), 2);
  }
  cache.GiveUp(1);
  EXPECT_LT(cache.bytes(), 2 * kBlockBytes - 2 * kPageBytes);
  cache.GiveUp(1 << 20);
  EXPECT_EQ(cache.bytes(), 0);
}

TEST(PrefixCacheTest, RandomUseKeepsTheBooks) {
  constexpr int64_t kMax = 20 * kBlockBytes;
  PrefixCache cache(kMax, 3 * kPageTokens);
  uint32_t random = 1;
  const auto next = [&random](uint32_t n) {
    random = random * 1664525 + 1013904223;
    return static_cast<int32_t>((random >> 16) % n);
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<int32_t> blocks;
    for (int i = 1 + next(8); i > 0; --i) blocks.push_back(next(3));
    const PrefixCache::Match match = cache.Find(Tokens(blocks));
    PrefixCache::BlockId last = match.last;
    if (round % 5 == 0) cache.GiveUp(next(3) * kBlockBytes);
    for (size_t i = match.blocks.size(); i < blocks.size(); ++i) {
      if (!cache.Holds(last)) break;
      last = cache.Add(last, Tokens({blocks[i]}), Block());
      ASSERT_LE(cache.bytes(), kMax);
      ASSERT_EQ(cache.bytes() % kPageBytes, 0);
    }
  }
  EXPECT_GT(cache.bytes(), kMax / 2);
}

}  // namespace
}  // namespace onegrid::inference
