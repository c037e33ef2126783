// Tests of the quantized and float linear layers, on every instruction set that
// the machine running the test has.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/random_floats.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/linear_testing.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid.h"
#include "kernels/quant/int8_activations.h"
#include "kernels/reference/ops.h"

namespace onegrid::cpu {
namespace {

using kernels::Isa;
using kernels::ThreadPool;

// Unit roundoff of float.
constexpr double kU = 0x1p-24;

struct Shape {
  int64_t m, n, k;
};

// Every number of rows in a panel, several panels, every edge of a tile, one
// group and the group counts around a float block of 8.
std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  for (int64_t m = 1; m <= 20; ++m) shapes.push_back({m, 33, 96});
  for (int64_t n : {1, 3, 15, 16, 17, 31, 129}) shapes.push_back({3, n, 64});
  for (int64_t k : {32, 224, 256, 288}) {
    shapes.push_back({5, 17, k});
    shapes.push_back({9, 17, k});
  }
  shapes.push_back({31, 48, 640});
  shapes.push_back({129, 33, 128});
  // Every number of rows in a panel of AMX, and more than one panel.
  for (int64_t m = 32; m <= 48; ++m) shapes.push_back({m, 17, 96});
  // Several tiles at once, of two groups more than are decoded at once (36),
  // and rows enough for each thread to have its own; and of one group more.
  shapes.push_back({34, 67, 1216});
  shapes.push_back({33, 16, 1184});
  shapes.push_back({200, 35, 64});
  // More tiles to a thread than are taken at once, and not a multiple of them.
  shapes.push_back({8, 1765, 32});
  // Some tiles of each stream of each thread, and some left over.
  shapes.push_back({1, 1061, 96});
  shapes.push_back({4, 805, 64});
  return shapes;
}

// The same with whole groups of a grid.
std::vector<Shape> Shapes(const quant::Grid& grid) {
  std::vector<Shape> shapes = Shapes();
  for (Shape& shape : shapes) {
    shape.k = (shape.k + grid.group - 1) / grid.group * grid.group;
  }
  return shapes;
}

constexpr CodeBits kBits[] = {CodeBits::k8, CodeBits::k16};

// One output of the quantized product, computed in double from the same codes,
// and the sum of the magnitudes of its group terms.
std::pair<double, double> Exact(const QuantizedActivations& x,
                                const quant::GridMatrix& w, int64_t m,
                                int64_t n) {
  double sum = 0, magnitude = 0;
  for (int64_t g = 0; g < x.groups(); ++g) {
    int64_t dot = 0;
    for (int64_t k = 32 * g; k < 32 * g + 32; ++k) {
      dot += x.CodeAt(m, k) * w.codes[static_cast<size_t>(n * w.cols + k)];
    }
    const double term =
        static_cast<double>(dot) *
        w.scales[static_cast<size_t>((n * w.cols + 32 * g) / w.grid->group)] *
        x.ScaleAt(m, g);
    sum += term;
    magnitude += std::fabs(term);
  }
  return {sum, magnitude};
}

// The integer dot products are exact. Each of G terms takes a conversion, which
// rounds where activations have 16 bits, and two rounded products, then at most
// G rounded additions: |error| <= (G + 3) u * sum |term| to first order; one
// more for the rest.
double WorstExcess(const QuantizedActivations& x, const quant::GridMatrix& w,
                   const std::vector<float>& out) {
  double worst = -std::numeric_limits<double>::infinity();
  for (int64_t m = 0; m < x.m(); ++m) {
    for (int64_t n = 0; n < w.rows; ++n) {
      const auto [sum, magnitude] = Exact(x, w, m, n);
      const double error =
          std::fabs(out[static_cast<size_t>(m * w.rows + n)] - sum);
      const double bound = static_cast<double>(x.groups() + 4) * kU * magnitude;
      worst = std::max(worst, error - bound);
    }
  }
  return worst;
}

class LinearTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) GTEST_SKIP() << "no such processor";
  }
  ThreadPool pool_{3};
};

TEST_P(LinearTest, EqualsExactIntegerModel) {
  for (const quant::Grid* grid : kGrids) {
    for (const auto& [m, n, k] : Shapes(*grid)) {
      const quant::GridMatrix w = Random(*grid, n, k, 1);
      for (const CodeBits bits : kBits) {
        QuantizedActivations x;
        QuantizeActivations(kernels::RandomFloats(m * k, 2), m, k, bits, &x,
                            pool_, GetParam());
        std::vector<float> out(static_cast<size_t>(m * n));
        Linear(x, Pack(w, pool_), out.data(), pool_, GetParam());
        EXPECT_LE(WorstExcess(x, w, out), 0)
            << grid->name << " " << m << " " << n << " " << k;
      }
    }
  }
}

TEST_P(LinearTest, ProductsOfOneLoopAreThoseOneByOne) {
  const int64_t k = 192;
  std::vector<PackedLinear> weights;
  for (const quant::Grid* grid : kGrids) {
    for (const int64_t n : {5, 805, 64}) {
      weights.push_back(Pack(Random(*grid, n, k, 1), pool_));
    }
  }
  for (const int64_t m : {1, 5, 9, 40}) {
    QuantizedActivations x;
    QuantizeActivations(kernels::RandomFloats(m * k, 2), m, k, CodeBits::k8, &x,
                        pool_, GetParam());
    std::vector<std::vector<float>> together, alone;
    std::vector<LinearProduct> products;
    for (const PackedLinear& w : weights) {
      together.emplace_back(static_cast<size_t>(m * w.n()));
      alone.push_back(together.back());
      Linear(x, w, alone.back().data(), pool_, GetParam());
    }
    for (size_t i = 0; i < weights.size(); ++i) {
      products.push_back({&weights[i], together[i].data()});
    }
    Linear(x, products, pool_, GetParam());
    EXPECT_EQ(together, alone) << m;
  }
}

TEST_P(LinearTest, OneStepInOneWeightExceedsTheBound) {
  const int64_t m = 2, n = 17, k = 640;
  for (const quant::Grid* grid : kGrids) {
    quant::GridMatrix w = Random(*grid, n, k, 1);
    QuantizedActivations x;
    QuantizeActivations(std::vector<float>(static_cast<size_t>(m * k), 1.0f), m,
                        k, CodeBits::k8, &x, pool_, GetParam());
    std::vector<float> out(static_cast<size_t>(m * n));
    Linear(x, Pack(w, pool_), out.data(), pool_, GetParam());
    ASSERT_LE(WorstExcess(x, w, out), 0) << grid->name;
    int8_t& code = w.codes[static_cast<size_t>(16 * k + 639)];
    code =
        static_cast<int8_t>(code == CodesOf(*grid).most ? code - 1 : code + 1);
    EXPECT_GT(WorstExcess(x, w, out), 0) << grid->name;
  }
}

// Largest and smallest codes in every place: no intermediate may saturate.
TEST_P(LinearTest, ExtremeCodesDoNotSaturate) {
  for (const int64_t m : {5, 20}) {
    const int64_t n = 16, k = 64;
    std::vector<float> x_values(static_cast<size_t>(m * k), -3.0f);
    for (int64_t i = 0; i < 3 * k; ++i) x_values[static_cast<size_t>(i)] = 2.0f;
    std::vector<float> out(static_cast<size_t>(m * n));
    for (const CodeBits bits : kBits) {
      QuantizedActivations x;
      QuantizeActivations(x_values, m, k, bits, &x, pool_, GetParam());
      for (const quant::Grid* grid : kGrids) {
        for (const int code : {CodesOf(*grid).least, CodesOf(*grid).most}) {
          quant::GridMatrix w = Random(*grid, n, k, 1);
          for (int8_t& c : w.codes) c = static_cast<int8_t>(code);
          Linear(x, Pack(w, pool_), out.data(), pool_, GetParam());
          EXPECT_LE(WorstExcess(x, w, out), 0) << grid->name << " " << code;
        }
      }
    }
  }
}

// The scale is the smallest that covers a group; a code is off by at most half
// a step, plus what rounding x * (most / amax) twice adds.
TEST_P(LinearTest, QuantizedActivationsAreWithinHalfAStep) {
  for (const CodeBits bits : kBits) {
    for (int64_t m : {1, 7, 12, 13, 29}) {
      const int64_t k = 96;
      const std::vector<float> x = kernels::RandomFloats(m * k, 3);
      QuantizedActivations q;
      QuantizeActivations(x, m, k, bits, &q, pool_, GetParam());
      const double most = bits == CodeBits::k8 ? 127 : 32767;
      for (int64_t row = 0; row < m; ++row) {
        for (int64_t i = 0; i < k; ++i) {
          const double scale = q.ScaleAt(row, i / 32);
          EXPECT_NEAR(q.CodeAt(row, i) * scale,
                      x[static_cast<size_t>(row * k + i)],
                      scale * (0.5 + most * 4 * kU));
        }
      }
    }
  }
}

// Training simulates serving with the scalar rule.
TEST_P(LinearTest, QuantizedActivationsAreTheScalarRulesBitForBit) {
  for (int64_t m : {1, 6, 13}) {
    const int64_t k = 256;
    std::vector<float> x = kernels::RandomFloats(m * k, 7);
    for (int64_t i = 0; i < k; i += 3) x[static_cast<size_t>(i)] *= 1e-9f;
    // Ties: a scale of exactly 1/2.
    for (int i = 0; i < 32; ++i) x[i] = i == 9 ? 63.5f : 0.25f * i - 4;
    for (int i = 32; i < 64; ++i) x[i] = i == 40 ? -1e-30f : 0;
    QuantizedActivations q, wide;
    QuantizeActivations(x, m, k, CodeBits::k8, &q, pool_, GetParam());
    QuantizeActivations(x, m, k, CodeBits::k16, &wide, pool_, GetParam());
    for (int64_t at = 0; at < m * k; at += 32) {
      int8_t codes[32];
      int16_t wide_codes[32];
      const auto group =
          absl::MakeConstSpan(x).subspan(static_cast<size_t>(at), 32);
      const int64_t row = at / k, g = at % k / 32;
      EXPECT_EQ(q.ScaleAt(row, g), quant::QuantizeInt8(group, codes));
      EXPECT_EQ(wide.ScaleAt(row, g), quant::QuantizeInt16(group, wide_codes));
      for (int i = 0; i < 32; ++i) {
        EXPECT_EQ(q.CodeAt(row, 32 * g + i), codes[i]) << at + i;
        EXPECT_EQ(wide.CodeAt(row, 32 * g + i), wide_codes[i]) << at + i;
      }
    }
  }
}

TEST_P(LinearTest, ZeroAndTinyActivationsGiveZero) {
  const int64_t m = 3, n = 16, k = 32;
  const PackedLinear packed = Pack(Random(quant::kInt4G32, n, k, 1), pool_);
  for (float value : {0.0f, 1e-39f}) {
    for (const CodeBits bits : kBits) {
      QuantizedActivations x;
      QuantizeActivations(std::vector<float>(static_cast<size_t>(m * k), value),
                          m, k, bits, &x, pool_, GetParam());
      std::vector<float> out(static_cast<size_t>(m * n), 1.0f);
      Linear(x, packed, out.data(), pool_, GetParam());
      for (float y : out) EXPECT_EQ(y, 0.0f);
    }
  }
}

// In float mode the weights are exact floats, so against MatMul (which sums K
// products in a float or better) both sides err by at most (K + 1) u sum |xw|.
void ExpectFloatMode(const Shape& shape, const PackedLinear& w,
                     const std::vector<float>& dense, ThreadPool& pool,
                     Isa isa) {
  const auto& [m, n, k] = shape;
  const std::vector<float> x = kernels::RandomFloats(m * k, 4);
  std::vector<float> out(static_cast<size_t>(m * n));
  LinearF32(x.data(), m, w, out.data(), pool, isa);
  std::vector<float> abs_x = x, abs_w = dense;
  for (float& v : abs_x) v = std::fabs(v);
  for (float& v : abs_w) v = std::fabs(v);
  const std::vector<float> want = reference::MatMul(x, dense, m, n, k);
  const std::vector<float> size = reference::MatMul(abs_x, abs_w, m, n, k);
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_NEAR(out[i], want[i], 2 * static_cast<double>(k + 1) * kU * size[i])
        << m << " " << n << " " << k << " at " << i;
  }
}

TEST_P(LinearTest, FloatModeMatchesReference) {
  for (const quant::Grid* grid : kGrids) {
    for (const Shape& shape : Shapes(*grid)) {
      const quant::GridMatrix w = Random(*grid, shape.n, shape.k, 5);
      std::vector<float> dense(w.codes.size());
      for (size_t i = 0; i < dense.size(); ++i) {
        dense[i] = static_cast<float>(w.codes[i]) *
                   w.scales[i / static_cast<size_t>(w.grid->group)];
      }
      ExpectFloatMode(shape, Pack(w, pool_), dense, pool_, GetParam());
    }
  }
}

TEST_P(LinearTest, Bf16MatchesReference) {
  for (const Shape& shape : Shapes()) {
    std::vector<uint8_t> bytes;
    const std::vector<float> dense = RandomBf16(shape.n * shape.k, &bytes);
    const auto w = PackedLinear::FromBlocks(quant::GgmlType::kBF16, bytes,
                                            shape.n, shape.k, pool_);
    ASSERT_TRUE(w.ok()) << w.status();
    EXPECT_FALSE(w->has_codes());
    ExpectFloatMode(shape, *w, dense, pool_, GetParam());
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, LinearTest, testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

}  // namespace
}  // namespace onegrid::cpu
