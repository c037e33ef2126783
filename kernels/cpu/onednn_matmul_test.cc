#include "kernels/cpu/onednn_matmul.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/float_types.h"
#include "kernels/base/random_floats.h"
#include "kernels/base/thread_pool.h"
#include "kernels/reference/ops.h"

namespace onegrid::cpu {
namespace {

using kernels::RandomFloats;
using kernels::ThreadPool;

bool HasBf16() {
  const kernels::CpuFeatures& cpu = kernels::GetCpuFeatures();
  return cpu.avx512bf16 || cpu.amx_bf16;
}

// Both operands are rounded to bf16 as the reference's are; products of two
// bf16 are exact in f32. Hardware may flush subnormals and sums k products in
// an order and precision of at least f32: k u sum |x w|, doubled for pairs that
// are rounded toward an odd last bit.
TEST(Bf16LinearTest, MatchesReferenceOnRoundedOperands) {
  if (!HasBf16()) GTEST_SKIP() << "no bf16 instructions";
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (auto [n, k] :
         {std::pair<int64_t, int64_t>{64, 32}, {33, 96}, {640, 256}}) {
      std::vector<float> w = RandomFloats(n * k, 1);
      const auto linear = Bf16Linear::Create(w, n, k, pool);
      ASSERT_TRUE(linear.ok()) << linear.status();
      EXPECT_EQ((*linear)->implementation().find("ref"), std::string::npos);
      for (float& v : w) v = kernels::Bf16ToFloat(kernels::FloatToBf16(v));
      for (int64_t m : {129, 1, 3, 64}) {
        std::vector<float> x = RandomFloats(m * k, 2);
        std::vector<float> out(static_cast<size_t>(m * n));
        const absl::Status done =
            (*linear)->Multiply(x.data(), m, out.data(), pool);
        ASSERT_TRUE(done.ok()) << done;
        for (float& v : x) v = kernels::Bf16ToFloat(kernels::FloatToBf16(v));
        const auto want = reference::MatMul(x, w, m, n, k);
        std::vector<float> abs_x = x, abs_w = w;
        for (float& v : abs_x) v = std::fabs(v);
        for (float& v : abs_w) v = std::fabs(v);
        const auto size = reference::MatMul(abs_x, abs_w, m, n, k);
        for (size_t i = 0; i < out.size(); ++i) {
          ASSERT_NEAR(out[i], want[i],
                      2 * static_cast<double>(k) * 0x1p-24 * size[i]);
        }
      }
    }
  }
}

TEST(Bf16LinearTest, ProcessorWithoutBf16IsAFailedPrecondition) {
  if (HasBf16()) GTEST_SKIP() << "this processor has bf16 instructions";
  ThreadPool pool(1);
  EXPECT_EQ(
      Bf16Linear::Create(RandomFloats(64, 1), 2, 32, pool).status().code(),
      absl::StatusCode::kFailedPrecondition);
}

TEST(Bf16LinearTest, WrongSizesAreInvalidArguments) {
  ThreadPool pool(1);
  const std::vector<float> w(64);
  for (auto [n, k] :
       {std::pair<int64_t, int64_t>{0, 32}, {2, 0}, {2, 31}, {-2, -32}}) {
    EXPECT_EQ(Bf16Linear::Create(w, n, k, pool).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace onegrid::cpu
