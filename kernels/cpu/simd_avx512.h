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

inline void ToInt16(F x, int16_t* p) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x)));
}

inline constexpr bool kSwapQueryCodes = true;

// As in simd_sse2.h.
template <int kRows>
inline void QueryDots(const int16_t* codes, const int32_t* sums, int64_t d,
                      const uint8_t* keys, int32_t* dots) {
  const __m512i low_byte = _mm512_set1_epi16(255);
  __m512i sum[kRows];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) sum[r] = _mm512_set1_epi32(-128 * sums[r]);
  for (int64_t i = 0; i < d; i += 4) {
    const __m512i line = _mm512_loadu_si512(keys + 16 * i);
    const __m512i even = _mm512_and_si512(line, low_byte);
    const __m512i odd = _mm512_srli_epi16(line, 8);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      int32_t pairs[2];
      __builtin_memcpy(pairs, codes + r * d + i, sizeof(pairs));
      sum[r] = _mm512_dpwssd_epi32(sum[r], even, _mm512_set1_epi32(pairs[0]));
      sum[r] = _mm512_dpwssd_epi32(sum[r], odd, _mm512_set1_epi32(pairs[1]));
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) _mm512_storeu_si512(dots + r * 16, sum[r]);
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SIMD_AVX512_H_
