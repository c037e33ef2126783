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
inline constexpr int kValueRows = 6;

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

inline void ToInt16(F x, int16_t* p) {
  const __m256i q = _mm256_cvtps_epi32(x);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi32(_mm256_castsi256_si128(q),
                                   _mm256_extracti128_si256(q, 1)));
}

// Keys are widened in order, so that four columns of a query are spread at
// once.
inline constexpr bool kSwapQueryCodes = false;

// sum + the products of 16 bits of a and b, two and two.
inline __m256i AddPairs(__m256i sum, __m256i a, __m256i b) {
#ifdef __AVXVNNI__
  return _mm256_dpwssd_avx_epi32(sum, a, b);
#else
  return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#endif
}

// Queries [first, first + kBlock) and 8 of the 16 keys, as unsigned bytes. Sums
// of these may wrap; less the offset they are right again.
template <int kBlock>
inline void BlockDots(const int16_t* codes, const int32_t* sums, int64_t d,
                      const uint8_t* keys, int32_t* dots) {
  // For each query the sums of two pairs of columns of keys 0-3 and 4-7.
  __m256i sum[kBlock][2];
#pragma GCC unroll 6
  for (int r = 0; r < kBlock; ++r) {
    sum[r][0] = sum[r][1] = _mm256_setzero_si256();
  }
  for (int64_t i = 0; i < d; i += 4) {
    const auto* line = reinterpret_cast<const __m128i*>(keys + 16 * i);
    const __m256i first = _mm256_cvtepu8_epi16(_mm_loadu_si128(line));
    const __m256i second = _mm256_cvtepu8_epi16(_mm_loadu_si128(line + 1));
#pragma GCC unroll 6
    for (int r = 0; r < kBlock; ++r) {
      int64_t quad;
      __builtin_memcpy(&quad, codes + r * d + i, sizeof(quad));
      const __m256i q = _mm256_set1_epi64x(quad);
      sum[r][0] = AddPairs(sum[r][0], q, first);
      sum[r][1] = AddPairs(sum[r][1], q, second);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kBlock; ++r) {
    // Keys 0 1 4 5 2 3 6 7.
    const __m256i mixed = _mm256_hadd_epi32(sum[r][0], sum[r][1]);
    const __m256i dot = _mm256_sub_epi32(
        _mm256_permute4x64_epi64(mixed, _MM_SHUFFLE(3, 1, 2, 0)),
        _mm256_set1_epi32(128 * sums[r]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(dots + r * 16), dot);
  }
}

// As in simd_sse2.h. Six queries at a time: their sums take 12 registers.
template <int kRows>
inline void QueryDots(const int16_t* codes, const int32_t* sums, int64_t d,
                      const uint8_t* keys, int32_t* dots) {
  constexpr int kBlock = 6;
  for (int half = 0; half < 2; ++half) {
    const uint8_t* half_keys = keys + 32 * half;
    int32_t* to = dots + 8 * half;
    if constexpr (kRows <= kBlock) {
      BlockDots<kRows>(codes, sums, d, half_keys, to);
    } else {
      BlockDots<kBlock>(codes, sums, d, half_keys, to);
      BlockDots<kRows - kBlock>(codes + kBlock * d, sums + kBlock, d, half_keys,
                                to + kBlock * 16);
    }
  }
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SIMD_AVX2_H_
