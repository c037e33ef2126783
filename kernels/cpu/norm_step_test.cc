// Goal: a step's norms, made row by row, are those of whole arrays.
// Method: bit for bit against RmsNormAdd, RmsNorm and QuantizeActivations.
#include "kernels/cpu/norm_step.h"

#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/random_floats.h"
#include "kernels/cpu/elementwise.h"

namespace onegrid::cpu {
namespace {

constexpr float kEps = 1e-6f;

struct Shape {
  int64_t m, k;
};
// One row; some for one thread; for two, of one panel and of several.
constexpr Shape kShapes[] = {{1, 96}, {5, 672}, {16, 2080}, {37, 1184}};

class NormStepTest : public testing::TestWithParam<kernels::Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) GTEST_SKIP() << "no such processor";
  }

  void Make(const Shape& shape) {
    const auto count = static_cast<size_t>(shape.m * shape.k);
    const auto k = static_cast<size_t>(shape.k);
    residual_ = kernels::RandomFloats(count, 1);
    branch_ = kernels::RandomFloats(count, 2);
    branch_weight_ = kernels::RandomFloats(k, 3);
    weight_ = kernels::RandomFloats(k, 4);
  }
  // With residual_, which it changes.
  NormStep Step(bool branch) {
    NormStep step = {
        .residual = residual_.data(), .weight = weight_.data(), .eps = kEps};
    if (branch) {
      step.branch = branch_.data();
      step.branch_weight = branch_weight_.data();
    }
    return step;
  }
  // What a step does, a whole array at a time.
  void Expect(const Shape& shape, bool branch, std::vector<float>* residual,
              std::vector<float>* normed) {
    *residual = residual_;
    normed->resize(residual->size());
    if (branch) {
      RmsNormAdd(branch_.data(), branch_weight_.data(), shape.m, shape.k, kEps,
                 residual->data(), pool_, GetParam());
    }
    RmsNorm(residual->data(), weight_.data(), shape.m, shape.k, kEps,
            normed->data(), pool_, GetParam());
  }

  std::vector<float> residual_, branch_, branch_weight_, weight_;
  kernels::ThreadPool pool_{2};
};

TEST_P(NormStepTest, NormsRowsAsWholeArrays) {
  for (const Shape& shape : kShapes) {
    for (const bool branch : {false, true}) {
      Make(shape);
      std::vector<float> residual, normed;
      Expect(shape, branch, &residual, &normed);
      std::vector<float> out(normed.size());
      NormRows(Step(branch), shape.m, shape.k, out.data(), pool_, GetParam());
      EXPECT_EQ(out, normed) << shape.m << " " << branch;
      EXPECT_EQ(residual_, residual) << shape.m << " " << branch;
    }
  }
}

TEST_P(NormStepTest, QuantizesThemAsWholeArrays) {
  for (const Shape& shape : kShapes) {
    for (const CodeBits bits : {CodeBits::k8, CodeBits::k16}) {
      Make(shape);
      std::vector<float> residual, normed;
      Expect(shape, true, &residual, &normed);
      QuantizedActivations expected, found;
      QuantizeActivations(normed, shape.m, shape.k, bits, &expected, pool_,
                          GetParam());
      QuantizeNormedRows(Step(true), shape.m, shape.k, bits, &found, pool_,
                         GetParam());
      EXPECT_EQ(residual_, residual);
      for (int64_t row = 0; row < shape.m; ++row) {
        for (int64_t i = 0; i < shape.k; ++i) {
          ASSERT_EQ(found.CodeAt(row, i), expected.CodeAt(row, i))
              << row << " " << i;
          ASSERT_EQ(found.ScaleAt(row, i / kLinearGroup),
                    expected.ScaleAt(row, i / kLinearGroup))
              << row << " " << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, NormStepTest,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& param_info) {
                           return kernels::IsaName(param_info.param);
                         });

}  // namespace
}  // namespace onegrid::cpu
