#include "kernels/base/cpu_features.h"

#include "gtest/gtest.h"

namespace onegrid::kernels {
namespace {

// The compiler's own detection reads the same registers.
TEST(CpuFeaturesTest, AgreesWithTheCompilersDetection) {
  const CpuFeatures& cpu = GetCpuFeatures();
  EXPECT_EQ(cpu.avx2, __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(cpu.fma, __builtin_cpu_supports("fma") != 0);
  EXPECT_EQ(cpu.avx512f, __builtin_cpu_supports("avx512f") != 0);
  EXPECT_EQ(cpu.avx512bw, __builtin_cpu_supports("avx512bw") != 0);
  EXPECT_EQ(cpu.avx512vl, __builtin_cpu_supports("avx512vl") != 0);
  EXPECT_EQ(cpu.avx512vnni, __builtin_cpu_supports("avx512vnni") != 0);
  EXPECT_EQ(cpu.avx512bf16, __builtin_cpu_supports("avx512bf16") != 0);
  EXPECT_EQ(cpu.amd, __builtin_cpu_is("amd") != 0);
  EXPECT_EQ(cpu.gfni, __builtin_cpu_supports("gfni") != 0 && cpu.avx512f);
}

TEST(CpuFeaturesTest, OnlyAvx512OfAmdUsesZenKernels) {
  for (const Isa isa : kAllIsas) {
    EXPECT_EQ(UsesZenKernels(isa),
              isa == Isa::kAvx512Vnni && __builtin_cpu_is("amd") != 0);
  }
}

TEST(CpuFeaturesTest, BestIsaIsSupportedAndNoneBetterIs) {
  EXPECT_TRUE(IsaSupported(Isa::kReference));
  EXPECT_TRUE(IsaSupported(BestIsa()));
  for (const Isa isa : kAllIsas) {
    if (static_cast<int>(isa) > static_cast<int>(BestIsa())) {
      EXPECT_FALSE(IsaSupported(isa)) << IsaName(isa);
    }
  }
}

}  // namespace
}  // namespace onegrid::kernels
