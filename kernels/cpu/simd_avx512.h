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

// As in simd_sse2.h.
template <int kRows>
inline void TileDots(const int8_t* q, const int32_t* sums, int64_t groups,
                     const uint8_t* k, int32_t* dots) {
  __m512i sum[kRows];
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) sum[m] = _mm512_set1_epi32(-128 * sums[m]);
  for (int64_t g = 0; g < groups; ++g) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m512i keys = _mm512_loadu_si512(k + 64 * j);
#pragma GCC unroll 12
      for (int m = 0; m < kRows; ++m) {
        int32_t quad;
        __builtin_memcpy(&quad, q + m * 32 + 4 * j, sizeof(quad));
        sum[m] = _mm512_dpbusd_epi32(sum[m], keys, _mm512_set1_epi32(quad));
      }
    }
    q += kRows * 32;
    k += 8 * 64;
  }
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) _mm512_storeu_si512(dots + m * 16, sum[m]);
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SIMD_AVX512_H_
