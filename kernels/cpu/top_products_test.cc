// Goal: the largest products are those of Linear, bit for bit, whatever the
// numbers are. Method: every instruction set, grid and way to find them against
// a full product that is sorted; numbers that activations in 8 bits put in
// another order.
#include "kernels/cpu/top_products.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <random>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/random_floats.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/coarse_products.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/sketch_products.h"
#include "kernels/quant/grid.h"
#include "kernels/quant/grid_blocks.h"

namespace onegrid::cpu {
namespace {

using kernels::Isa;
using kernels::RandomFloats;
using kernels::ThreadPool;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Codes of a grid, rows of very different norms.
quant::GridMatrix Random(const quant::Grid& grid, int64_t n, int64_t k) {
  std::mt19937 random(5);
  const int most = &grid == &quant::kInt8G32   ? 127
                   : &grid == &quant::kInt4G32 ? 7
                                               : 1;
  quant::GridMatrix w{n, k, {}, {}, &grid};
  for (int64_t i = 0; i < n * k; ++i) {
    w.codes.push_back(static_cast<int8_t>(
        static_cast<int>(random() % static_cast<uint32_t>(2 * most + 1)) -
        most));
  }
  for (int64_t i = 0; i < n * k / grid.group; ++i) {
    w.scales.push_back(
        quant::SnapScale(0.01f * static_cast<float>(1 + random() % 9)));
  }
  return w;
}

// Of int8 split, as a sketch needs them.
PackedLinear Pack(const quant::GridMatrix& w, ThreadPool& pool) {
  return *PackedLinear::FromBlocks(quant::BlockType(*w.grid),
                                   *quant::PackBlocks(w), w.rows, w.cols, pool,
                                   nullptr, PackedLinear::Storage::kSplit);
}

class TopProductsTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) GTEST_SKIP() << "no such processor";
  }

  // All products of x [m, k], capped, those of each row sorted.
  std::vector<std::vector<TopProduct>> Sorted(const std::vector<float>& x,
                                              int64_t m, const PackedLinear& w,
                                              CodeBits bits = CodeBits::k16) {
    QuantizedActivations codes;
    QuantizeActivations(x, m, w.k(), bits, &codes, pool_, GetParam());
    std::vector<float> out(static_cast<size_t>(m * w.n()));
    Linear(codes, w, out.data(), pool_, GetParam());
    if (cap_ > 0) {
      SoftCap(out.data(), cap_, m * w.n(), out.data(), pool_, GetParam());
    }
    std::vector<std::vector<TopProduct>> rows(static_cast<size_t>(m));
    for (int64_t i = 0; i < m * w.n(); ++i) {
      rows[static_cast<size_t>(i / w.n())].push_back(
          {static_cast<int32_t>(i % w.n()), out[static_cast<size_t>(i)]});
    }
    for (auto& row : rows) {
      std::stable_sort(row.begin(), row.end(),
                       [](const TopProduct& a, const TopProduct& b) {
                         return a.value > b.value;
                       });
    }
    return rows;
  }

  // A sketch that has learnt from such activations.
  SketchProducts Learnt(const PackedLinear& w, const std::vector<float>& x) {
    SketchProducts sketch(w, pool_, GetParam());
    while (!sketch.ready()) sketch.Learn(x);
    return sketch;
  }

  // The differences between what Find gives, with activations in 8 bits and
  // with a sketch of int8, and the first of `sorted`.
  int Differences(const PackedLinear& w, const std::vector<float>& x,
                  const std::vector<int>& counts,
                  const std::vector<std::vector<TopProduct>>& sorted) {
    ByteProducts bytes(w, pool_, GetParam());
    std::vector<CoarseProducts*> ways = {&bytes};
    std::optional<SketchProducts> sketch;
    if (w.split()) ways.push_back(&sketch.emplace(Learnt(w, x)));
    TopProducts top(w, pool_, GetParam(), cap_);
    int differences = 0;
    for (CoarseProducts* coarse : ways) {
      std::vector<float> scratch(counts.size() * sorted[0].size());
      const auto best = top.Find(*coarse, x, counts, scratch.data());
      differences += best.size() != counts.size();
      for (size_t m = 0; m < best.size(); ++m) {
        differences += best[m].size() != static_cast<size_t>(counts[m]);
        for (size_t i = 0; i < best[m].size(); ++i) {
          differences += best[m][i].index != sorted[m][i].index ||
                         best[m][i].value != sorted[m][i].value;
        }
      }
    }
    return differences;
  }

  ThreadPool pool_{3};
  float cap_ = 0;
};

TEST_P(TopProductsTest, AreThoseOfTheFullProductBitForBit) {
  const struct {
    int64_t m, n, k;
  } shapes[] = {{1, 1, 64},     {2, 17, 64},   {9, 100, 320},
                {16, 1000, 64}, {17, 300, 64}, {3, 4099, 128}};
  for (const quant::Grid* grid :
       {&quant::kInt2G64, &quant::kInt4G32, &quant::kInt8G32}) {
    for (const auto& [m, n, k] : shapes) {
      const PackedLinear w = Pack(Random(*grid, n, k), pool_);
      const std::vector<float> x = RandomFloats(m * k, 2);
      const auto sorted = Sorted(x, m, w);
      std::vector<int> counts;
      for (int64_t i = 0; i < m; ++i) {
        counts.push_back(
            static_cast<int>(1 + i * (n - 1) / std::max<int64_t>(1, m - 1)));
      }
      EXPECT_EQ(Differences(w, x, counts, sorted), 0)
          << grid->name << " " << m << " " << n << " " << k;
    }
  }
}

// Of so many rows some are so close that in 8 bits they are in another order,
// and others are among the largest.
// Nothing of a call is left in the next one.
TEST_P(TopProductsTest, CallsDoNotDependOnThoseBefore) {
  const int64_t n = 1000, k = 64;
  const PackedLinear w = Pack(Random(quant::kInt4G32, n, k), pool_);
  ByteProducts bytes(w, pool_, GetParam());
  TopProducts top(w, pool_, GetParam(), cap_);
  for (uint32_t call = 0; call < 6; ++call) {
    const int64_t m = call % 2 == 0 ? 3 : 1;
    const std::vector<float> x = RandomFloats(m * k, 10 + call);
    const std::vector<int> counts(static_cast<size_t>(m), 2);
    std::vector<float> scratch(static_cast<size_t>(m * n));
    const auto best = top.Find(bytes, x, counts, scratch.data());
    const auto sorted = Sorted(x, m, w);
    for (size_t row = 0; row < counts.size(); ++row) {
      for (size_t i = 0; i < 2; ++i) {
        EXPECT_EQ(best[row][i].index, sorted[row][i].index) << call;
        EXPECT_EQ(best[row][i].value, sorted[row][i].value) << call;
      }
    }
  }
}

TEST_P(TopProductsTest, FindsThoseThatEightBitsPutElsewhere) {
  const int64_t n = 4096, k = 320, m = 10;
  constexpr size_t kCount = 100;
  const PackedLinear w = Pack(Random(quant::kInt8G32, n, k), pool_);
  const std::vector<float> x = RandomFloats(m * k, 7);
  const auto sorted = Sorted(x, m, w);
  const auto coarse = Sorted(x, m, w, CodeBits::k8);
  for (size_t row = 0; row < m; ++row) {
    std::vector<int32_t> fine_ones, coarse_ones;
    for (size_t i = 0; i < kCount; ++i) {
      fine_ones.push_back(sorted[row][i].index);
      coarse_ones.push_back(coarse[row][i].index);
    }
    EXPECT_NE(fine_ones, coarse_ones);
  }
  EXPECT_EQ(Differences(w, x, std::vector<int>(m, kCount), sorted), 0);
}

// As of logits, some of which stand out.
TEST_P(TopProductsTest, ComputesFewTilesInFull) {
  const int64_t n = 40000, k = 128, m = 10;
  const PackedLinear w = Pack(Random(quant::kInt8G32, n, k), pool_);
  ByteProducts bytes(w, pool_, GetParam());
  // Products are up to 270: the largest all but reach the cap.
  for (const float cap : {0.0f, 30.0f}) {
    TopProducts top(w, pool_, GetParam(), cap);
    std::vector<float> scratch(static_cast<size_t>(m * n));
    top.Find(bytes, RandomFloats(m * k, 2), std::vector<int>(m, 20),
             scratch.data());
    EXPECT_GE(top.tiles_computed(), m);
    EXPECT_LE(top.tiles_computed(), m * 100);  // of 2,500
  }
}

// Of equal products the lower rows come first, also where all are equal.
TEST_P(TopProductsTest, TiesGoToTheLowerRow) {
  const int64_t n = 500, k = 64, m = 9;
  quant::GridMatrix w = Random(quant::kInt4G32, n, k);
  for (size_t i = 0; i < w.codes.size(); ++i) {
    w.codes[i] = w.codes[i % static_cast<size_t>(3 * k)];
  }
  for (float& scale : w.scales) scale = w.scales[0];
  const PackedLinear packed = Pack(w, pool_);
  std::vector<float> x = RandomFloats(m * k, 4);
  std::fill(x.begin(), x.begin() + 2 * k, 0.0f);
  EXPECT_EQ(
      Differences(packed, x, std::vector<int>(m, 7), Sorted(x, m, packed)), 0);
}

// A cap far above all products, one below many of them, and one so low that
// many are the same number, the cap.
TEST_P(TopProductsTest, AreThoseOfTheFullProductCapped) {
  const int64_t n = 4099, k = 128, m = 3;
  const PackedLinear w = Pack(Random(quant::kInt8G32, n, k), pool_);
  for (const float scale : {0.2f, 1.0f}) {
    std::vector<float> x = RandomFloats(m * k, 3);
    for (float& value : x) value *= scale;
    for (const float cap : {1e4f, 30.0f, 1.0f}) {
      cap_ = cap;
      const auto sorted = Sorted(x, m, w);
      EXPECT_EQ(sorted[0][0].value == cap && sorted[0][60].value == cap,
                cap == 1);
      EXPECT_EQ(Differences(w, x, {1, 50, 3000}, sorted), 0)
          << scale << " " << cap;
    }
  }
}

// Some ten products each are the same number once they are capped, and those of
// lower rows are less before: what is looked for before the cap must be less
// than what the cap takes to the largest.
TEST_P(TopProductsTest, TiesUnderTheCapGoToTheLowerRow) {
  const int64_t n = 200, k = 1280;
  quant::GridMatrix w = Random(quant::kInt8G32, n, k);
  for (int64_t i = 0; i < n * k; ++i) {
    w.codes[static_cast<size_t>(i)] = i % k < 100 + i / k ? 118 : 117;
  }
  std::fill(w.scales.begin(), w.scales.end(), quant::SnapScale(0.001f));
  const PackedLinear packed = Pack(w, pool_);
  cap_ = 30;
  const std::vector<float> x(k, 1.0f);
  const auto sorted = Sorted(x, 1, packed);
  EXPECT_EQ(sorted[0][0].value, sorted[0][4].value);
  EXPECT_LT(sorted[0][0].index, sorted[0][4].index);
  EXPECT_LT(sorted[0].back().value, sorted[0][0].value);
  for (const int count : {1, 7, 50}) {
    EXPECT_EQ(Differences(packed, x, {count}, sorted), 0) << count;
  }
}

// Found, though they can't be right: nothing hangs, breaks or leaves a gap.
TEST_P(TopProductsTest, GivesAsManyForWhatIsNoNumber) {
  const int64_t n = 300, k = 64;
  const PackedLinear w = Pack(Random(quant::kInt8G32, n, k), pool_);
  std::vector<float> x = RandomFloats(4 * k, 4);
  SketchProducts good = Learnt(w, x);
  x[5] = kInfinity;
  x[k + 7] = -kInfinity;
  x[2 * k + 9] = std::nanf("");
  for (int64_t i = 3 * k; i < 4 * k; ++i) x[static_cast<size_t>(i)] = 3e38f;
  ByteProducts bytes(w, pool_, GetParam());
  SketchProducts bad = Learnt(w, x);
  TopProducts top(w, pool_, GetParam());
  for (CoarseProducts* coarse :
       std::initializer_list<CoarseProducts*>{&bytes, &good, &bad}) {
    const std::vector<int> counts = {1, 40, 300, 40};
    std::vector<float> scratch(static_cast<size_t>(4 * n));
    const auto best = top.Find(*coarse, x, counts, scratch.data());
    for (size_t row = 0; row < counts.size(); ++row) {
      EXPECT_EQ(best[row].size(), static_cast<size_t>(counts[row]));
      for (const TopProduct& product : best[row]) {
        EXPECT_TRUE(product.value == product.value);
        EXPECT_TRUE(product.index >= 0 && product.index < n);
      }
    }
  }
}

// A sketch that learnt from what is no number, or from nothing but zeros, finds
// the same, with more work.
TEST_P(TopProductsTest, AreTheSameWhateverWasLearnt) {
  const int64_t n = 500, k = 96, m = 2;
  const PackedLinear w = Pack(Random(quant::kInt8G32, n, k), pool_);
  const std::vector<float> x = RandomFloats(m * k, 8);
  const auto sorted = Sorted(x, m, w);
  for (const float value :
       {0.0f, kInfinity, std::nanf(""), 3e38f, 1e-11f, 1e-42f}) {
    SketchProducts sketch = Learnt(w, std::vector<float>(k, value));
    TopProducts top(w, pool_, GetParam());
    std::vector<float> scratch(static_cast<size_t>(m * n));
    const auto best = top.Find(sketch, x, {3, 30}, scratch.data());
    for (size_t row = 0; row < m; ++row) {
      for (size_t i = 0; i < best[row].size(); ++i) {
        EXPECT_EQ(best[row][i].index, sorted[row][i].index) << value;
        EXPECT_EQ(best[row][i].value, sorted[row][i].value) << value;
      }
    }
  }
}

// Sums in 16 bits that overflow on their way keep to no bound that sums in 8
// bits give, which don't: all that is left out rounds down in 8 bits. The rows
// of the second block look larger there.
TEST_P(TopProductsTest, FindsWhatOverflowsInSixteenBitsOnly) {
  const int64_t n = 100, k = 64;
  quant::GridMatrix w = Random(quant::kInt8G32, n, k);
  for (int64_t i = 0; i < n * k; ++i) {
    w.codes[static_cast<size_t>(i)] = i / k < 64 || i % k < 32 ? 1 : 0;
  }
  std::fill(w.scales.begin(), w.scales.end(), quant::SnapScale(1.0f));
  const PackedLinear packed = Pack(w, pool_);
  const float most = 0.95f * std::numeric_limits<float>::max();
  std::vector<float> x(k, 0.0f);
  std::fill(x.begin(), x.begin() + 32, most * 0.489f / 127);
  x[0] = most;
  x[32] = -0.5f * most;
  const auto sorted = Sorted(x, 1, packed);
  EXPECT_EQ(sorted[0][0].value, kInfinity);
  EXPECT_LT(Sorted(x, 1, packed, CodeBits::k8)[0][0].value, 1.01f * most);
  for (const int count : {1, 7, 100}) {
    EXPECT_EQ(Differences(packed, x, {count}, sorted), 0) << count;
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, TopProductsTest,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

class LinearRowsTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) GTEST_SKIP() << "no such processor";
  }
  ThreadPool pool_{2};
};

// Sums of k squares: (k + 1) u and half of it after the root, and what is
// computed here.
TEST_P(LinearRowsTest, NormsAreThoseOfTheRows) {
  for (const quant::Grid* grid :
       {&quant::kInt2G64, &quant::kInt4G32, &quant::kInt8G32}) {
    const int64_t n = 37, k = 192;
    const PackedLinear w = Pack(Random(*grid, n, k), pool_);
    std::vector<float> norms(static_cast<size_t>(n)), row(k);
    RowNorms(w, norms.data(), pool_, GetParam());
    for (int64_t r = 0; r < n; ++r) {
      w.DequantizeRow(r, absl::MakeSpan(row));
      double squares = 0;
      for (const float value : row) squares += double{value} * value;
      const double norm = std::sqrt(squares);
      EXPECT_NEAR(norms[static_cast<size_t>(r)], norm,
                  norm * 0x1p-24 * static_cast<double>(k + 3) / 2)
          << grid->name << " row " << r;
    }
  }
}

TEST_P(LinearRowsTest, ATileIsThatOfTheWholeProduct) {
  const int64_t n = 37, k = 96;
  const PackedLinear w = Pack(Random(quant::kInt8G32, n, k), pool_);
  for (const int64_t m : {1, 5, 9, 16, 20}) {
    for (const CodeBits bits : {CodeBits::k8, CodeBits::k16}) {
      QuantizedActivations x;
      QuantizeActivations(RandomFloats(m * k, 1), m, k, bits, &x, pool_,
                          GetParam());
      std::vector<float> all(static_cast<size_t>(m * n));
      Linear(x, w, all.data(), pool_, GetParam());
      for (const int64_t tile : {0, 1, 2}) {
        std::vector<float> out(static_cast<size_t>(m * 16));
        LinearTile(x, w, tile, out.data());
        for (int64_t i = 0; i < m * 16; ++i) {
          const int64_t row = 16 * tile + i % 16;
          if (row >= n) continue;
          EXPECT_EQ(out[static_cast<size_t>(i)],
                    all[static_cast<size_t>(i / 16 * n + row)]);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, LinearRowsTest,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

}  // namespace
}  // namespace onegrid::cpu
