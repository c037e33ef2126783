// Goal: the largest values are found whatever is among them, and products with
// activations in 8 bits are as close to those in 16 as their bound says.
#include "kernels/cpu/coarse_products.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/quantized_activations.h"
#include "kernels/cpu/vector_kernels.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/q8_0.h"

namespace onegrid::cpu {
namespace {

using kernels::Isa;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> Normal(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = normal(random);
  return x;
}

TEST(DeviationTest, CountsEachColumnByItsScale) {
  kernels::ThreadPool pool(1);
  const int64_t rows = 2, k = 64;
  const std::vector<float> x = Normal(rows * k, 5);
  QuantizedActivations codes;
  QuantizeActivations(x, rows, k, CodeBits::k8, &codes, pool);
  std::vector<float> scales;
  for (int64_t i = 0; i < k; ++i) scales.push_back(i % 7 == 0 ? 16.0f : 0.5f);
  for (int64_t row = 0; row < rows; ++row) {
    const std::vector<double> wide(x.begin() + row * k,
                                   x.begin() + (row + 1) * k);
    double rest = 0, norm = 0;
    for (int64_t i = 0; i < k; ++i) {
      const auto at = static_cast<size_t>(i);
      const double left =
          wide[at] -
          codes.CodeAt(row, i) * double{codes.ScaleAt(row, i / kLinearGroup)};
      rest += left * left * scales[at] * scales[at];
      norm += wide[at] * wide[at] * scales[at] * scales[at];
    }
    const Deviation off = DeviationOf(codes, row, wide, scales);
    EXPECT_NEAR(off.rest, std::sqrt(rest), 1e-12 * std::sqrt(rest));
    EXPECT_GE(off.norm, std::sqrt(norm));
    EXPECT_LE(off.norm, std::sqrt(norm) + 1.001 * std::sqrt(rest));
  }
}

TEST(LargestOfTilesTest, LeavesOutWhatIsNoNumber) {
  std::mt19937 random(1);
  for (const int64_t n : {1, 15, 16, 17, 50, 160}) {
    std::vector<float> values = Normal(n, 3);
    for (float& value : values) {
      if (random() % 3 == 0) value = std::nanf("");
      if (random() % 20 == 0) value = kInfinity;
      if (random() % 20 == 0) value = -kInfinity;
    }
    // One tile of nothing else.
    if (n > 32) std::fill_n(values.begin() + 16, 16, std::nanf(""));
    std::vector<float> wanted, largest(static_cast<size_t>((n + 15) / 16), 7);
    for (int64_t i = 0; i < n; ++i) {
      if (i % 16 == 0) wanted.push_back(-kInfinity);
      const float value = values[static_cast<size_t>(i)];
      if (value > wanted.back()) wanted.back() = value;
    }
    for (const Isa isa : kernels::kAllIsas) {
      if (!kernels::IsaSupported(isa)) continue;
      std::fill(largest.begin(), largest.end(), 7.0f);
      LargestOfTiles(values.data(), n, largest.data(), isa);
      EXPECT_EQ(largest, wanted) << n << " " << kernels::IsaName(isa);
    }
    EXPECT_EQ(LargestOf(values.data(), n),
              *std::max_element(wanted.begin(), wanted.end()))
        << n;
  }
}

// Aligned sums take another way to memory.
TEST(AddUp16Test, IsTheSumAndItsLargestOnEveryInstructionSet) {
  const int64_t count = 5, n = count * kTileRows;
  std::vector<float> a = Normal(n, 4);
  const std::vector<float> b = Normal(n, 5);
  a[3] = std::nanf("");
  a[20] = kInfinity;
  std::fill_n(a.begin() + 32, kTileRows, std::nanf(""));
  std::vector<float> wanted, most(static_cast<size_t>(count));
  for (size_t i = 0; i < a.size(); ++i) wanted.push_back(8.0f * a[i] + b[i]);
  LargestOfTiles(wanted.data(), n, most.data());
  for (const Isa isa : kernels::kAllIsas) {
    if (!kernels::IsaSupported(isa)) continue;
    for (const int64_t offset : {0, 1}) {
      SCOPED_TRACE(testing::Message()
                   << kernels::IsaName(isa) << " " << offset);
      kernels::AlignedBuffer<float> sums(static_cast<size_t>(n + 2));
      std::vector<float> largest(static_cast<size_t>(count));
      VectorKernelsFor(isa).add_up_16(a.data(), 8.0f, b.data(), count,
                                      sums.data() + offset, largest.data());
      EXPECT_EQ(std::memcmp(sums.data() + offset, wanted.data(),
                            wanted.size() * sizeof(float)),
                0);
      EXPECT_EQ(sums[static_cast<size_t>(n + offset)], 0);  // Nothing behind.
      EXPECT_EQ(largest, most);
    }
  }
}

TEST(RowBoundsTest, HasTheLargestOfEachTile) {
  std::vector<float> values(40, 1.0f);
  values[20] = 5;
  values[39] = 3;
  const RowBounds bounds(values);
  EXPECT_EQ(bounds.values()[20], 5);
  EXPECT_EQ(std::vector<float>(bounds.of_tiles(), bounds.of_tiles() + 3),
            (std::vector<float>{1, 5, 3}));
  EXPECT_EQ(bounds.largest(), 5);
}

class ByteProductsTest : public testing::TestWithParam<Isa> {};

// Rows of weights that are what 8 bits leave out of the activations reach the
// bound, but for being in 8 bits themselves.
TEST_P(ByteProductsTest, AreAsCloseAsTheySay) {
  if (!kernels::IsaSupported(GetParam())) GTEST_SKIP() << "no such processor";
  kernels::ThreadPool pool(2);
  const int64_t n = 48, k = 160;
  const std::vector<float> x = Normal(k, 1);
  QuantizedActivations exact, codes;
  QuantizeActivations(x, 1, k, CodeBits::k16, &exact, pool, GetParam());
  QuantizeActivations(x, 1, k, CodeBits::k8, &codes, pool, GetParam());
  std::vector<float> rows = Normal(n * k, 2);
  for (int64_t i = 0; i < k; ++i) {
    const float fine = static_cast<float>(exact.CodeAt(0, i)) *
                       exact.ScaleAt(0, i / kLinearGroup);
    rows[static_cast<size_t>(7 * k + i)] =
        fine - static_cast<float>(codes.CodeAt(0, i)) *
                   codes.ScaleAt(0, i / kLinearGroup);
  }
  const PackedLinear w = *PackedLinear::FromBlocks(
      quant::GgmlType::kQ8_0, *quant::EncodeQ8_0(rows, n, k), n, k, pool);
  std::vector<float> wanted(static_cast<size_t>(n)), coarse(wanted);
  Linear(exact, w, wanted.data(), pool, GetParam());
  ByteProducts bytes(w, pool, GetParam());
  std::vector<float> of_tiles(static_cast<size_t>(w.tile_count()));
  std::vector<float> largest(of_tiles);
  bytes.Multiply(x, 1, coarse.data(), of_tiles.data());
  LargestOfTiles(coarse.data(), n, largest.data());
  EXPECT_EQ(of_tiles, largest);
  const std::vector<float> errors = bytes.Errors(0, exact);
  ASSERT_EQ(errors.size(), bytes.bounds().size());
  for (size_t r = 0; r < coarse.size(); ++r) {
    const double off = std::abs(double{coarse[r]} - wanted[r]);
    const double bound = double{errors[0]} * bytes.bounds()[0].values()[r];
    EXPECT_LE(off, bound) << r;
    EXPECT_GE(off, r == 7 ? 0.95 * bound : 0) << r;
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, ByteProductsTest,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

}  // namespace
}  // namespace onegrid::cpu
