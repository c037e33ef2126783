// Goal: a sketch's products are as close to those in 16 bits as it says, and
// not much closer; and where activations are like those it learnt from, it
// leaves few of the largest in doubt. Method: every instruction set, weights
// and activations with columns of very different sizes, and activations that
// are made of what the sketch leaves out.
#include "kernels/cpu/sketch_products.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/coarse_products.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/sketch_basis.h"
#include "kernels/cpu/top_products.h"
#include "kernels/quant/q8_0.h"

namespace onegrid::cpu {
namespace {

using kernels::Isa;
using kernels::ThreadPool;

// Rows whose columns have very different sizes, along a few directions first of
// all: as a model's last activations and its vocabulary.
std::vector<float> Rows(int64_t rows, int64_t k, float along, uint32_t seed,
                        uint32_t directions_seed = 3, float large = 20) {
  std::mt19937 random(seed), fixed(directions_seed);
  std::normal_distribution<float> normal;
  std::vector<float> directions(static_cast<size_t>(4 * k));
  for (float& value : directions) value = normal(fixed);
  std::vector<float> x;
  for (int64_t row = 0; row < rows; ++row) {
    float share[4];
    for (float& value : share) value = along * normal(random);
    for (int64_t i = 0; i < k; ++i) {
      float value = normal(random);
      for (int64_t d = 0; d < 4; ++d) {
        value += share[d] * directions[static_cast<size_t>(d * k + i)];
      }
      x.push_back(value * (i % 37 == 0 ? large : 1.0f));
    }
  }
  return x;
}

PackedLinear Pack(const std::vector<float>& w, int64_t n, int64_t k,
                  ThreadPool& pool) {
  return *PackedLinear::FromBlocks(quant::GgmlType::kQ8_0,
                                   *quant::EncodeQ8_0(w, n, k), n, k, pool,
                                   nullptr, PackedLinear::Storage::kSplit);
}

class SketchProductsTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) GTEST_SKIP() << "no such processor";
  }

  SketchProducts Learnt(const PackedLinear& w, const std::vector<float>& x) {
    SketchProducts sketch(w, pool_, GetParam());
    while (!sketch.ready()) sketch.Learn(x);
    return sketch;
  }

  // For each product of x [m, k]: how far the sketch's is off, over what it
  // says at most.
  std::vector<double> Shares(SketchProducts& sketch, const PackedLinear& w,
                             const std::vector<float>& x) {
    const int64_t k = w.k(), n = w.n();
    const auto m = static_cast<int64_t>(x.size()) / k;
    std::vector<float> coarse(static_cast<size_t>(m * n));
    const int64_t tiles = w.tile_count();
    std::vector<float> of_tiles(static_cast<size_t>(m * tiles));
    sketch.Multiply(x, m, coarse.data(), of_tiles.data());
    for (int64_t row = 0; row < m; ++row) {
      std::vector<float> largest(static_cast<size_t>(tiles));
      LargestOfTiles(coarse.data() + row * n, n, largest.data());
      EXPECT_EQ(largest,
                std::vector<float>(of_tiles.begin() + row * tiles,
                                   of_tiles.begin() + (row + 1) * tiles));
    }
    std::vector<double> shares;
    for (int64_t row = 0; row < m; ++row) {
      QuantizedActivations exact;
      QuantizeActivations(
          absl::MakeConstSpan(x).subspan(static_cast<size_t>(row * k),
                                         static_cast<size_t>(k)),
          1, k, CodeBits::k16, &exact, pool_, GetParam());
      std::vector<float> wanted(static_cast<size_t>(n));
      Linear(exact, w, wanted.data(), pool_, GetParam());
      const std::vector<float> errors = sketch.Errors(row, exact);
      for (int64_t r = 0; r < n; ++r) {
        double bound = 0;
        for (size_t i = 0; i < errors.size(); ++i) {
          bound += double{errors[i]} * sketch.bounds()[i].values()[r];
        }
        const double off =
            std::abs(double{coarse[static_cast<size_t>(row * n + r)]} -
                     wanted[static_cast<size_t>(r)]);
        shares.push_back(off / bound);
      }
    }
    return shares;
  }

  ThreadPool pool_{2};
};

TEST_P(SketchProductsTest, ProductsAreAsCloseAsItSays) {
  for (const int64_t k : {32, 96, 320}) {
    const int64_t n = 333;
    const PackedLinear w = Pack(Rows(n, k, 0.5f, 1), n, k, pool_);
    SketchProducts sketch = Learnt(w, Rows(64, k, 5, 2));
    for (const float along : {0.0f, 5.0f}) {
      const std::vector<double> shares =
          Shares(sketch, w, Rows(20, k, along, 9));
      EXPECT_LE(*std::max_element(shares.begin(), shares.end()), 1) << k;
    }
  }
}

// What is left out of a row, as activations: the bound of Cauchy and Schwarz is
// reached but for what is lost along the directions and to 8 bits. Columns are
// of a size, so their scales are 1.
TEST_P(SketchProductsTest, TheBoundIsReached) {
  const int64_t n = 40, k = 320;
  const PackedLinear w = Pack(Rows(n, k, 0.5f, 1, 3, 1), n, k, pool_);
  SketchProducts sketch = Learnt(w, Rows(64, k, 5, 2, 3, 1));
  // Products with unit vectors are the weights of both. These are exact in 8
  // bits, and so is the sketch, but for directions.
  std::vector<float> units(static_cast<size_t>(k * k));
  for (int64_t i = 0; i < k; ++i) units[static_cast<size_t>(i * k + i)] = 1;
  std::vector<float> coarse(static_cast<size_t>(k * n));
  std::vector<float> of_tiles(static_cast<size_t>(k * w.tile_count()));
  sketch.Multiply(units, k, coarse.data(), of_tiles.data());
  double most = 0;
  for (const int64_t row : {0, 7, 39}) {
    std::vector<float> weights(static_cast<size_t>(k)), x;
    w.DequantizeRow(row, absl::MakeSpan(weights));
    for (int64_t i = 0; i < k; ++i) {
      x.push_back(weights[static_cast<size_t>(i)] -
                  coarse[static_cast<size_t>(i * n + row)]);
    }
    most = std::max(most, Shares(sketch, w, x)[static_cast<size_t>(row)]);
  }
  EXPECT_GT(most, 0.5);
  EXPECT_LE(most, 1);
}

// What 8 bits leave out of activations has all of its product with weights of
// the same signs. The sample is those activations, so nothing lies across the
// directions.
TEST_P(SketchProductsTest, TheBoundOfEightBitsIsReached) {
  const int64_t n = 16, k = 160;
  std::mt19937 random(5);
  // As large as each other but for a factor of 2: their scales are 1.
  std::vector<float> x;
  for (int64_t i = 0; i < k; ++i) {
    const float value = 1 + static_cast<float>(random() % 1000) / 1000;
    x.push_back(random() % 2 == 0 ? value : -value);
  }
  std::vector<float> rows(static_cast<size_t>(n * k), 1.0f);
  QuantizedActivations codes;
  QuantizeActivations(x, 1, k, CodeBits::k8, &codes, pool_, GetParam());
  for (int64_t i = 0; i < k; ++i) {
    const float left =
        x[static_cast<size_t>(i)] - static_cast<float>(codes.CodeAt(0, i)) *
                                        codes.ScaleAt(0, i / kLinearGroup);
    rows[static_cast<size_t>(i)] = left < 0 ? -1.0f : 1.0f;
  }
  const PackedLinear w = Pack(rows, n, k, pool_);
  SketchProducts sketch = Learnt(w, x);
  const std::vector<double> shares = Shares(sketch, w, x);
  EXPECT_GT(shares[0], 0.5);
  EXPECT_LE(*std::max_element(shares.begin(), shares.end()), 1);
}

TEST_P(SketchProductsTest, LeavesLessInDoubtOfWhatItKnows) {
  const int64_t n = 20000, k = 128, m = 4;
  const PackedLinear w = Pack(Rows(n, k, 0, 1, 3, 1), n, k, pool_);
  const std::vector<float> x = Rows(m, k, 10, 11, 3, 1);
  std::vector<float> scratch(static_cast<size_t>(m * n));
  const auto doubt = [&](uint32_t directions_seed) {
    SketchProducts sketch = Learnt(w, Rows(512, k, 10, 2, directions_seed, 1));
    TopProducts top(w, pool_, GetParam());
    top.Find(sketch, x, std::vector<int>(m, 10), scratch.data());
    return static_cast<double>(top.tiles_computed()) / (m * n / 16);
  };
  const double same = doubt(3), other = doubt(4);
  EXPECT_LT(same, other / 2);
}

TEST_P(SketchProductsTest, LearnsInSmallParts) {
  const int64_t n = 5000, k = 64;
  const PackedLinear w = Pack(Rows(n, k, 0.5f, 1), n, k, pool_);
  SketchProducts sketch(w, pool_, GetParam());
  const std::vector<float> x = Rows(100, k, 5, 2);
  int calls = 0;
  for (; !sketch.ready(); ++calls) {
    sketch.Learn(x);
  }
  // 512 rows are six times 100.
  EXPECT_GT(calls, 6 + SketchProducts::kEncodingCalls / 2);
  EXPECT_LE(calls, 6 + SketchProducts::kEncodingCalls);
  // The upper plane's two groups and two of directions.
  EXPECT_EQ(SketchProducts::BytesFor(w), (n + 15) / 16 * 4 * kInt4GroupBytes);
  sketch.Learn(x);
  EXPECT_TRUE(sketch.ready());
}

INSTANTIATE_TEST_SUITE_P(Isas, SketchProductsTest,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

TEST(SketchBasisTest, SpansWhatTheSampleHas) {
  const int64_t k = 96, rows = 20;
  const std::vector<float> sample = Rows(rows, k, 5, 2);
  const std::vector<float> squares(static_cast<size_t>(k), 1.0f);
  const SketchBasis basis = ChooseSketchBasis(sample, rows, squares);
  ASSERT_EQ(basis.k(), k);
  EXPECT_LT(basis.skew, 1e-4);
  for (int64_t a = 0; a < kSketchDirections; ++a) {
    double self = 0;
    for (int64_t i = 0; i < k; ++i) {
      const float value = basis.directions[static_cast<size_t>(a * k + i)];
      self += double{value} * value;
    }
    // There are 20 independent ones.
    EXPECT_GE(self, a < rows ? 1 - 1e-5 : 0);
    EXPECT_LE(self, 1 + 1e-5);
  }
  for (int64_t row = 0; row < rows; ++row) {
    std::vector<float> scaled(sample.begin() + row * k,
                              sample.begin() + (row + 1) * k);
    double norm = 0;
    for (size_t i = 0; i < scaled.size(); ++i) {
      scaled[i] *= basis.scales[i];
      norm += double{scaled[i]} * scaled[i];
    }
    float along[kSketchDirections];
    basis.Project(scaled.data(), along);
    const std::vector<double> wide(scaled.begin(), scaled.end());
    const auto [rest, rest_along] = basis.RestOf(wide, along);
    EXPECT_LT(rest, 1e-5 * std::sqrt(norm));
    EXPECT_LE(rest_along, rest * 1.001);
    // Of a row that has nothing along them all is left.
    const std::vector<float> none(kSketchDirections);
    EXPECT_NEAR(basis.RestOf(wide, none.data()).norm, std::sqrt(norm),
                1e-9 * std::sqrt(norm));
  }
}

// Columns whose activations are large among the weights are scaled down.
TEST(SketchBasisTest, ScalesArePowersOfTwoBetweenBothSides) {
  std::vector<float> a(32, 1.0f), b(32, 1.0f);
  a[3] = 0x1p20f;
  b[4] = 0x1p20f;
  b[5] = 0;
  a[6] = std::nanf("");
  a[7] = 1e30f;
  b[7] = 1e-30f;
  const std::vector<float> scales = ScalesBetween(a, b);
  for (size_t i = 0; i < scales.size(); ++i) {
    EXPECT_EQ(std::exp2(std::round(std::log2(scales[i]))), scales[i]);
    if (i != 3 && i != 4) {
      EXPECT_EQ(scales[i], 1) << i;
    }
  }
  EXPECT_GT(scales[3], 4);
  EXPECT_LT(scales[4], 0.25f);
}

}  // namespace
}  // namespace onegrid::cpu
