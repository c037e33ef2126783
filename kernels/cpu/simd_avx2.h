#ifndef KERNELS_CPU_SIMD_AVX2_H_
#define KERNELS_CPU_SIMD_AVX2_H_

// Vectors of 8 floats: the functions of simd_sse2.h for AVX2 and FMA.

#include <immintrin.h>

#include <cstdint>

namespace onegrid::cpu {
namespace {

using F = __m256;
using I = int32_t __attribute__((vector_size(32)));
inline constexpr int kLanes = 8;

inline F Load(const float* p) { return _mm256_loadu_ps(p); }
inline void Store(float* p, F x) { _mm256_storeu_ps(p, x); }
inline F Set(float x) { return _mm256_set1_ps(x); }
inline F Max(F a, F b) { return _mm256_max_ps(a, b); }
inline F Min(F a, F b) { return _mm256_min_ps(a, b); }
inline F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F Abs(F x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }

inline F FromInt8(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

inline void ToInt8(F x, int8_t* p) {
  const __m256i q = _mm256_cvtps_epi32(x);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q),
                                        _mm256_extracti128_si256(q, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(words, words));
}

// Rows [first, first + kBlock) of kRows, 8 of the 16 keys. The product is
// |k| * (q * sign(k)), whose pairs fit 16 bits: 2 * 128 * 127 = 32,512.
template <int kRows, int kBlock>
inline void HalfTileDots(const int8_t* q, int64_t groups, const uint8_t* k,
                         int first, int half, int32_t* dots) {
  const __m256i bias = _mm256_set1_epi8(-128);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum[kBlock];
#pragma GCC unroll 4
  for (int m = 0; m < kBlock; ++m) sum[m] = _mm256_setzero_si256();
  q += first * 32;
  k += half * 32;
  for (int64_t g = 0; g < groups; ++g) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m256i keys = _mm256_xor_si256(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(k + 64 * j)),
          bias);
      const __m256i magnitude = _mm256_abs_epi8(keys);
#pragma GCC unroll 4
      for (int m = 0; m < kBlock; ++m) {
        int32_t quad;
        __builtin_memcpy(&quad, q + m * 32 + 4 * j, sizeof(quad));
        const __m256i pairs = _mm256_maddubs_epi16(
            magnitude, _mm256_sign_epi8(_mm256_set1_epi32(quad), keys));
        sum[m] = _mm256_add_epi32(sum[m], _mm256_madd_epi16(pairs, ones));
      }
    }
    q += kRows * 32;
    k += 8 * 64;
  }
#pragma GCC unroll 4
  for (int m = 0; m < kBlock; ++m) {
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(dots + (first + m) * 16 + 8 * half), sum[m]);
  }
}

// As in simd_sse2.h; the sums are not needed here.
template <int kRows>
inline void TileDots(const int8_t* q, const int32_t*, int64_t groups,
                     const uint8_t* k, int32_t* dots) {
  for (int half = 0; half < 2; ++half) {
    for (int m = 0; m + 4 <= kRows; m += 4) {
      HalfTileDots<kRows, 4>(q, groups, k, m, half, dots);
    }
    if constexpr (kRows % 4 != 0) {
      HalfTileDots<kRows, kRows % 4>(q, groups, k, kRows / 4 * 4, half, dots);
    }
  }
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SIMD_AVX2_H_
