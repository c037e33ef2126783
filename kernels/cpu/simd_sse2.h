#ifndef KERNELS_CPU_SIMD_SSE2_H_
#define KERNELS_CPU_SIMD_SSE2_H_

// Vectors of 4 floats, for any x86-64. Like its siblings for AVX2 and AVX-512,
// included by one source file per op only; all names are local to that file, so
// code for one instruction set cannot end up in another's.

#include <emmintrin.h>

#include <cstdint>

namespace onegrid::cpu {
namespace {

using F = __m128;
using I = int32_t __attribute__((vector_size(16)));
inline constexpr int kLanes = 4;

inline F Load(const float* p) { return _mm_loadu_ps(p); }
inline void Store(float* p, F x) { _mm_storeu_ps(p, x); }
inline F Set(float x) { return _mm_set1_ps(x); }
inline F Max(F a, F b) { return _mm_max_ps(a, b); }
inline F Min(F a, F b) { return _mm_min_ps(a, b); }
// a * b + c rounded once, as the other instruction sets have it: a library call
// for each lane.
inline F Fma(F a, F b, F c) {
  for (int i = 0; i < kLanes; ++i) a[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return a;
}
inline F Abs(F x) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), x); }

// kLanes bytes as floats.
inline F FromInt8(const int8_t* p) {
  return _mm_setr_ps(p[0], p[1], p[2], p[3]);
}

// x rounded to nearest even, |x| <= 127.
inline void ToInt8(F x, int8_t* p) {
  const __m128i words = _mm_packs_epi32(_mm_cvtps_epi32(x), __m128i());
  const int32_t bytes = _mm_cvtsi128_si32(_mm_packs_epi16(words, words));
  __builtin_memcpy(p, &bytes, sizeof(bytes));
}

// dots[m * 16 + r] = sum over i of q[m][i] * (k[r][i] - 128), m < kRows, r <
// 16; q is [groups][kRows][32], k one key tile [groups * 8][16][4], sums
// [kRows] the sum of each row of q.
template <int kRows>
inline void TileDots(const int8_t* q, const int32_t* sums, int64_t groups,
                     const uint8_t* k, int32_t* dots) {
  for (int m = 0; m < kRows; ++m) {
    for (int r = 0; r < 16; ++r) {
      int32_t dot = -128 * sums[m];
      for (int64_t i = 0; i < 32 * groups; ++i) {
        dot += q[(i / 32 * kRows + m) * 32 + i % 32] *
               k[i / 4 * 64 + 4 * r + i % 4];
      }
      dots[m * 16 + r] = dot;
    }
  }
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SIMD_SSE2_H_
