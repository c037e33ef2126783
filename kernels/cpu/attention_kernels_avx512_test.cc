// Both sets of attention's kernels for AVX-512 give the same bits, on a
// processor of whichever maker.
#include <algorithm>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/cpu_features.h"
#include "kernels/cpu/attention_kernels.h"

namespace onegrid::cpu {
namespace {

constexpr int kMostRows = 12;
constexpr int64_t kHeadDim = 96;  // An odd number of groups of columns.

class AttentionKernelsAvx512Test : public testing::Test {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(kernels::Isa::kAvx512Vnni)) {
      GTEST_SKIP() << "needs AVX-512 VNNI";
    }
  }

  template <typename T>
  std::vector<T> Random(int64_t count, int least, int most) {
    std::uniform_int_distribution<int> range(least, most);
    std::vector<T> x(static_cast<size_t>(count));
    for (T& value : x) value = static_cast<T>(range(random_));
    return x;
  }

  std::mt19937 random_{31};
};

TEST_F(AttentionKernelsAvx512Test, ScoresAreTheSameBits) {
  const auto keys = Random<int8_t>(kPageTokens * kHeadDim, -127, 127);
  const auto key_scales = Random<float>(kPageTokens, 1, 1000);
  for (int rows = 1; rows <= kMostRows; ++rows) {
    auto codes = Random<int16_t>(rows * kHeadDim, -32767, 32767);
    auto scales = Random<float>(rows, 1, 1000);
    const QueryPanel panel = {codes.data(), scales.data(), rows};
    for (int first = 0; first < 4; ++first) {
      for (int end = first + 1; end <= 4; ++end) {
        std::vector<float> one(static_cast<size_t>(rows * kPageTokens), -1);
        std::vector<float> other = one;
        for (const auto& [kernels, scores] :
             {std::pair{&kAttentionKernelsAvx512, &one},
              std::pair{&kAttentionKernelsZen, &other}}) {
          kernels->scores_int8(panel, kHeadDim, keys.data(), key_scales.data(),
                               nullptr, first, end, scores->data(),
                               kPageTokens);
        }
        ASSERT_NE(one[static_cast<size_t>(first) * kKeyTile], -1);
        ASSERT_EQ(one, other)
            << rows << " rows, tiles " << first << " to " << end;
      }
    }
  }
}

TEST_F(AttentionKernelsAvx512Test, SumsOfValuesAreTheSameBits) {
  constexpr int64_t kGroups = kHeadDim / kValueGroup;
  const auto codes =
      Random<int8_t>(kPartPages * kPageTokens * kHeadDim, -127, 127);
  const auto group_scales =
      Random<int16_t>(kPartPages * kGroups * kPageTokens, 1, 32767);
  const auto token_scales = Random<float>(kPartTokens, 1, 1000);
  for (int rows = 1; rows <= kMostRows; ++rows) {
    const auto p = Random<float>(rows * kPartTokens, 0, 1000);
    PartValues values = {};
    while (values.count < kPartPages) {
      const int64_t page = values.count;
      values.pages[values.count++] = {
          codes.data() + page * kPageTokens * kHeadDim,
          group_scales.data() + page * kGroups * kPageTokens,
          token_scales.data() + page * kPageTokens};
      std::vector<float> one(static_cast<size_t>(rows * kHeadDim), -1);
      std::vector<float> other = one;
      kAttentionKernelsAvx512.sum_values_int8(p.data(), rows, values, kHeadDim,
                                              one.data());
      kAttentionKernelsZen.sum_values_int8(p.data(), rows, values, kHeadDim,
                                           other.data());
      ASSERT_EQ(std::count(one.begin(), one.end(), -1.0f), 0);
      ASSERT_EQ(one, other) << rows << " rows, " << values.count << " pages";
    }
  }
}

}  // namespace
}  // namespace onegrid::cpu
