// Goal: whatever way is chosen, the largest logits are those of all; the sketch
// is used once it is learnt, and left alone where it leaves too many in doubt.
#include "services/inference/logit_search.h"

#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/quantized_activations.h"
#include "kernels/cpu/sketch_products.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/q4_0.h"
#include "kernels/quant/q8_0.h"
#include "services/inference/sampler.h"

namespace onegrid::inference {
namespace {

using Storage = cpu::PackedLinear::Storage;

constexpr int64_t kRows = 8000, kColumns = 256;

std::vector<float> Normal(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = normal(random);
  return x;
}

class LogitSearchTest : public testing::Test {
 protected:
  cpu::PackedLinear Head(quant::GgmlType type, Storage storage) {
    const std::vector<float> w = Normal(kRows * kColumns, 1);
    const auto blocks = type == quant::GgmlType::kQ8_0
                            ? *quant::EncodeQ8_0(w, kRows, kColumns)
                            : *quant::EncodeQ4_0(w, kRows, kColumns);
    return *cpu::PackedLinear::FromBlocks(type, blocks, kRows, kColumns, pool_,
                                          nullptr, storage);
  }

  // Rows that have much along one row of the head: some logits stand out.
  std::vector<float> Likely(const cpu::PackedLinear& head, int rows,
                            uint32_t seed) {
    std::vector<float> x = Normal(rows * kColumns, seed), row(kColumns);
    for (int m = 0; m < rows; ++m) {
      head.DequantizeRow((seed * 31 + m * 17) % kRows, absl::MakeSpan(row));
      for (size_t i = 0; i < row.size(); ++i) {
        x[m * row.size() + i] = 0.3f * x[m * row.size() + i] + row[i];
      }
    }
    return x;
  }

  // Empty: not found. Otherwise the differences from the sorted logits.
  int Differences(LogitSearch& search, const cpu::PackedLinear& head,
                  const std::vector<float>& x, const std::vector<int>& counts) {
    const auto m = static_cast<int64_t>(counts.size());
    std::vector<float> all(m * kRows), scratch(m * kRows);
    cpu::QuantizedActivations codes;
    cpu::QuantizeActivations(x, m, kColumns, cpu::CodeBits::k16, &codes, pool_);
    cpu::Linear(codes, head, all.data(), pool_);
    const auto best = search.Find(x, counts, scratch.data());
    if (best.empty()) return -1;
    int differences = 0;
    for (int64_t row = 0; row < m; ++row) {
      const absl::Span<const float> logits =
          absl::MakeConstSpan(all).subspan(row * kRows, kRows);
      const std::vector<int32_t> top = TopN(logits, counts[row]);
      for (size_t i = 0; i < top.size(); ++i) {
        differences += best[row][i].index != top[i] ||
                       best[row][i].value != logits[top[i]];
      }
    }
    return differences;
  }

  void Learn(LogitSearch& search, const cpu::PackedLinear& head) {
    std::vector<float> scratch(8 * kRows);
    for (uint32_t seed = 0; !search.learnt(); ++seed) {
      search.Find(Likely(head, 8, seed), std::vector<int>(8, 1),
                  scratch.data());
    }
  }

  kernels::ThreadPool pool_{2};
};

TEST_F(LogitSearchTest, TheSketchIsUsedOnceItIsLearnt) {
  const cpu::PackedLinear head = Head(quant::GgmlType::kQ8_0, Storage::kSplit);
  LogitSearch search(head, 4, pool_, kernels::BestIsa());
  EXPECT_TRUE(search.has_sketch());
  EXPECT_EQ(Differences(search, head, Likely(head, 1, 7), {1}), -1);
  EXPECT_EQ(search.bytes_read(), 0);
  Learn(search, head);
  for (const std::vector<int>& counts : {std::vector<int>{1}, {1, 5}}) {
    const auto rows = static_cast<int>(counts.size());
    EXPECT_EQ(Differences(search, head, Likely(head, rows, 7), counts), 0);
    EXPECT_GT(search.bytes_read(), cpu::SketchProducts::BytesFor(head));
    EXPECT_LT(search.bytes_read(), head.bytes());
  }
  // Most logits of a row.
  EXPECT_EQ(Differences(search, head, Likely(head, 1, 7), {300}), -1);
}

// Rows unlike all that was learnt, whose logits are close to each other.
TEST_F(LogitSearchTest, TheSketchIsLeftAloneWhereItDoesNotPay) {
  const cpu::PackedLinear head = Head(quant::GgmlType::kQ8_0, Storage::kSplit);
  LogitSearch search(head, 4, pool_, kernels::BestIsa());
  Learn(search, head);
  const std::vector<int> counts = {200};
  int used = 0;
  while (Differences(search, head, Normal(kColumns, 9), counts) == 0) {
    ASSERT_LT(++used, 20);
  }
  EXPECT_GT(used, 0);
  // Fewer logits are another matter.
  EXPECT_EQ(Differences(search, head, Likely(head, 1, 7), {1}), 0);
  // It is tried again some time.
  std::vector<float> scratch(kRows);
  int calls = 1;
  while (search.Find(Normal(kColumns, 9), counts, scratch.data()).empty()) {
    ASSERT_LT(++calls, 2000);
  }
  EXPECT_GT(calls, 10);
}

// Rows that it would not be used for teach it, too, so that a server's memory
// does not grow at some later time.
TEST_F(LogitSearchTest, AnyRowsAreLearntFrom) {
  const cpu::PackedLinear head = Head(quant::GgmlType::kQ8_0, Storage::kSplit);
  LogitSearch search(head, 8, pool_, kernels::BestIsa());
  const std::vector<float> x = Likely(head, 8, 7);
  std::vector<float> scratch(8 * kRows);
  int calls = 0;
  for (; !search.learnt(); ++calls) {
    ASSERT_LT(calls, 1000);
    EXPECT_TRUE(
        search.Find(x, std::vector<int>(8, 40), scratch.data()).empty());
  }
  EXPECT_LE(calls, cpu::SketchProducts::kSampleRows / 8 +
                       cpu::SketchProducts::kEncodingCalls);
  EXPECT_TRUE(search.Find(x, std::vector<int>(8, 40), scratch.data()).empty());
}

TEST_F(LogitSearchTest, ManyRowsAreSearchedInEightBitsWithoutASketch) {
  const cpu::PackedLinear head = Head(quant::GgmlType::kQ8_0, Storage::kWhole);
  LogitSearch search(head, 9, pool_, kernels::BestIsa());
  EXPECT_FALSE(search.has_sketch());
  EXPECT_TRUE(search.learnt());
  EXPECT_EQ(
      Differences(search, head, Likely(head, 8, 7), std::vector<int>(8, 1)),
      -1);
  EXPECT_EQ(
      Differences(search, head, Likely(head, 9, 7), std::vector<int>(9, 40)),
      0);
  EXPECT_GT(search.bytes_read(), head.bytes());
}

TEST_F(LogitSearchTest, AHeadInFourBitsHasNoSketch) {
  const cpu::PackedLinear head = Head(quant::GgmlType::kQ4_0, Storage::kSplit);
  LogitSearch search(head, 4, pool_, kernels::BestIsa());
  EXPECT_FALSE(search.has_sketch());
  EXPECT_TRUE(search.learnt());
  EXPECT_EQ(Differences(search, head, Likely(head, 1, 7), {1}), -1);
}

}  // namespace
}  // namespace onegrid::inference
