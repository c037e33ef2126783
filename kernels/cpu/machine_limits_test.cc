#include "kernels/cpu/machine_limits.h"

#include "gtest/gtest.h"

namespace onegrid::cpu {
namespace {

using kernels::Isa;

// Bounds that hold on any machine of the last ten years and the next few,
// however busy: a loop that the compiler removed would be far above them.
TEST(MachineLimitsTest, AreWithinReason) {
  kernels::ThreadPool pool(2);
  for (const Isa isa : kernels::kAllIsas) {
    if (!kernels::IsaSupported(isa)) continue;
    const MachineLimits limits = MeasureMachineLimits(pool, 50'000'001, isa);
    EXPECT_GT(limits.read_gb_per_s, 0.1);
    EXPECT_LT(limits.read_gb_per_s, 1000);
    EXPECT_GT(limits.int8_gops, 1);
    // 2 threads, 6 GHz, two vectors of 64 products a cycle; a tile of 16 x 16
    // x 64 products in 16 cycles.
    const double products = isa == Isa::kAmx ? 16 * 64 : 2 * 64;
    EXPECT_LT(limits.int8_gops, 2 * 6 * products * 2);
  }
}

}  // namespace
}  // namespace onegrid::cpu
