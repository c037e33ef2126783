// Compiled for AVX-VNNI: include nothing that defines inline functions
// outside the intrinsics.
#include <immintrin.h>

#include "kernels/cpu/peak_kernels.h"

namespace onegrid::cpu {
namespace {

// Independent sums: enough to hide the latency of a dot product.
constexpr int kSums = 12;

void Int8Dots(int64_t rounds) {
  __m256i sums[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sums[i] = _mm256_setzero_si256();
  __m256i a = _mm256_set1_epi8(1);
  __m256i b = _mm256_set1_epi8(1);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) {
      // Opaque, so that no product is taken out of the loop or shared.
      asm volatile("" : "+x"(a), "+x"(b));
      sums[i] = _mm256_dpbusd_avx_epi32(sums[i], a, b);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) asm volatile("" : : "x"(sums[i]));
}

}  // namespace

const PeakKernels kPeakKernelsAvxVnni = {Int8Dots, kSums * 32 * 2};

}  // namespace onegrid::cpu
