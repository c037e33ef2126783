#ifndef KERNELS_CPU_SIMD_AVX512_H_
#define KERNELS_CPU_SIMD_AVX512_H_

// Vectors of 16 floats: the functions of simd_sse2.h for AVX-512 with VNNI.

#include <immintrin.h>

#include <cstdint>

namespace onegrid::cpu {
namespace {

using F = __m512;
using I = int32_t __attribute__((vector_size(64)));
inline constexpr int kLanes = 16;
inline constexpr int kValueRows = 12;

inline F Load(const float* p) { return _mm512_loadu_ps(p); }
inline void Store(float* p, F x) { _mm512_storeu_ps(p, x); }
inline F Set(float x) { return _mm512_set1_ps(x); }
inline F Max(F a, F b) { return _mm512_max_ps(a, b); }
inline F Min(F a, F b) { return _mm512_min_ps(a, b); }
inline F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F Abs(F x) { return _mm512_abs_ps(x); }

inline F FromInt8(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

inline void ToInt8(F x, int8_t* p) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}

inline void StoreQuery(F high, F low, int r, int64_t i, int64_t, int rows,
                       int8_t* codes) {
  int8_t* to = codes + (i / 32 * 2 * rows + 2 * r) * 32 + i % 32;
  ToInt8(high, to);
  ToInt8(low, to + 32);
}

// As in simd_sse2.h.
template <int kRows>
inline void QueryDots(const int8_t* codes, const int32_t* sums, int64_t d,
                      const uint8_t* keys, int32_t* dots) {
  constexpr int kTerms = 2 * kRows;
  __m512i sum[kTerms];
#pragma GCC unroll 12
  for (int m = 0; m < kTerms; ++m) sum[m] = _mm512_set1_epi32(-128 * sums[m]);
  for (int64_t g = 0; g < d / 32; ++g) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m512i line = _mm512_loadu_si512(keys + 64 * j);
#pragma GCC unroll 12
      for (int m = 0; m < kTerms; ++m) {
        int32_t quad;
        __builtin_memcpy(&quad, codes + m * 32 + 4 * j, sizeof(quad));
        sum[m] = _mm512_dpbusd_epi32(sum[m], line, _mm512_set1_epi32(quad));
      }
    }
    codes += kTerms * 32;
    keys += 8 * 64;
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    const __m512i high = _mm512_mullo_epi32(sum[2 * r], _mm512_set1_epi32(254));
    _mm512_storeu_si512(dots + r * 16, _mm512_add_epi32(high, sum[2 * r + 1]));
  }
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SIMD_AVX512_H_
