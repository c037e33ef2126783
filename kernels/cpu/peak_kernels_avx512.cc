// Compiled for AVX-512 VNNI: include nothing that defines inline functions
// outside the intrinsics.
#include <immintrin.h>

#include "kernels/cpu/peak_kernels.h"

namespace onegrid::cpu {
namespace {

// Independent sums: enough to hide the latency of a dot product.
constexpr int kSums = 16;

void Int8Dots(int64_t rounds) {
  __m512i sums[kSums];
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_setzero_si512();
  __m512i a = _mm512_set1_epi8(1);
  __m512i b = _mm512_set1_epi8(1);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      // Opaque, so that no product is taken out of the loop or shared.
      asm volatile("" : "+v"(a), "+v"(b));
      sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) asm volatile("" : : "v"(sums[i]));
}

}  // namespace

const PeakKernels kPeakKernelsAvx512 = {Int8Dots, kSums * 64 * 2};

}  // namespace onegrid::cpu
