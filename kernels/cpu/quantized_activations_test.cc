// Goal: rows come out of the layouts of all kernels as they went in.
// Method: rows as a whole against single codes and scales; rows that are made
// against those of an array. The codes themselves are linear_test.cc's.
#include "kernels/cpu/quantized_activations.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/random_floats.h"

namespace onegrid::cpu {
namespace {

constexpr int64_t kK = 160;
// One row; a panel of each size class; panels of different sizes.
constexpr int64_t kRows[] = {1, 6, 12, 17, 33};

class QuantizedActivationsTest : public testing::TestWithParam<kernels::Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) GTEST_SKIP() << "no such processor";
  }
  kernels::ThreadPool pool_{2};
};

TEST_P(QuantizedActivationsTest, DequantizesRowsAsTheirCodesAndScales) {
  for (const int64_t m : kRows) {
    const std::vector<float> x = kernels::RandomFloats(m * kK, 1);
    for (const CodeBits bits : {CodeBits::k8, CodeBits::k16}) {
      QuantizedActivations codes;
      QuantizeActivations(x, m, kK, bits, &codes, pool_, GetParam());
      std::vector<double> row(kK);
      for (int64_t r = 0; r < m; ++r) {
        codes.DequantizeRow(r, row.data());
        for (int64_t i = 0; i < kK; ++i) {
          const double scale = codes.ScaleAt(r, i / kLinearGroup);
          const double value = row[static_cast<size_t>(i)];
          ASSERT_EQ(value, codes.CodeAt(r, i) * scale) << m << " " << r;
          // Half a unit, and 2^15 of them times some roundings of 2^-24.
          ASSERT_NEAR(value, x[static_cast<size_t>(r * kK + i)],
                      (0.5 + 0x1p-6) * scale)
              << m << " " << r << " " << i;
        }
      }
    }
  }
}

TEST_P(QuantizedActivationsTest, MakesEachRowOnceAndRoundsItAsOthers) {
  constexpr int64_t kMost = 300;  // For two threads.
  for (const int64_t m : {int64_t{1}, int64_t{12}, kMost}) {
    const std::vector<float> x = kernels::RandomFloats(m * kK, 2);
    QuantizedActivations expected, found;
    QuantizeActivations(x, m, kK, CodeBits::k8, &expected, pool_, GetParam());
    std::vector<std::atomic<int>> made(static_cast<size_t>(m));
    const auto make = [&](int64_t row, int64_t rows, float* to) {
      ASSERT_LE(rows, kRowsAtOnce);
      for (int64_t i = 0; i < rows; ++i) ++made[static_cast<size_t>(row + i)];
      const float* from = x.data() + row * kK;
      std::copy(from, from + rows * kK, to);
    };
    QuantizeRows(m, kK, CodeBits::k8, make, &found, pool_, GetParam());
    for (int64_t row = 0; row < m; ++row) {
      ASSERT_EQ(made[static_cast<size_t>(row)], 1) << row;
      for (int64_t i = 0; i < kK; ++i) {
        ASSERT_EQ(found.CodeAt(row, i), expected.CodeAt(row, i)) << row;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, QuantizedActivationsTest,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& param_info) {
                           return kernels::IsaName(param_info.param);
                         });

}  // namespace
}  // namespace onegrid::cpu
