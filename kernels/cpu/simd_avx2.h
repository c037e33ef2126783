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
// Past the caches; p is aligned.
inline void StoreStreamed(float* p, F x) { _mm256_stream_ps(p, x); }
inline F Set(float x) { return _mm256_set1_ps(x); }
inline F Max(F a, F b) { return _mm256_max_ps(a, b); }
inline F Min(F a, F b) { return _mm256_min_ps(a, b); }
inline F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F Abs(F x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
inline float MaxLane(F x) {
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ps(y, _mm_shuffle_ps(y, y, 1)));
}

inline void ToInt8(F x, int8_t* p) {
  const __m256i q = _mm256_cvtps_epi32(x);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q),
                                        _mm256_extracti128_si256(q, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(words, words));
}

// In order, so that four columns of a row are spread at once.
inline void ToCodes(F x, int16_t* p) {
  const __m256i q = _mm256_cvtps_epi32(x);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi32(_mm256_castsi256_si128(q),
                                   _mm256_extracti128_si256(q, 1)));
}

// sum + the products of 16 bits of a and b, two and two.
inline __m256i AddPairs(__m256i sum, __m256i a, __m256i b) {
#ifdef __AVXVNNI__
  return _mm256_dpwssd_avx_epi32(sum, a, b);
#else
  return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#endif
}

// As in simd_sse2.h.
inline void MultiplyCodes(const int16_t* codes, int rows,
                          const int16_t* factors, int16_t* products) {
  for (int i = 0; i < rows * 64; i += 16) {
    const auto at = [](const int16_t* p) {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    };
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(products + i),
        _mm256_mulhrs_epi16(at(codes + i), at(factors + i % 64)));
  }
}

// kBlock rows and 8 of the tile's 16.
template <int kBlock, bool kAdd>
inline void BlockDots(const int16_t* codes, int64_t n, const int8_t* tile,
                      int32_t* dots) {
  // For each row the sums of two pairs of columns of 0-3 and 4-7 of the tile.
  __m256i sum[kBlock][2];
#pragma GCC unroll 6
  for (int r = 0; r < kBlock; ++r) {
    sum[r][0] = sum[r][1] = _mm256_setzero_si256();
  }
  for (int64_t i = 0; i < n; i += 4) {
    const auto* line = reinterpret_cast<const __m128i*>(tile + 16 * i);
    const __m256i first = _mm256_cvtepi8_epi16(_mm_loadu_si128(line));
    const __m256i second = _mm256_cvtepi8_epi16(_mm_loadu_si128(line + 1));
#pragma GCC unroll 6
    for (int r = 0; r < kBlock; ++r) {
      int64_t quad;
      __builtin_memcpy(&quad, codes + r * n + i, sizeof(quad));
      const __m256i q = _mm256_set1_epi64x(quad);
      sum[r][0] = AddPairs(sum[r][0], q, first);
      sum[r][1] = AddPairs(sum[r][1], q, second);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kBlock; ++r) {
    // 0 1 4 5 2 3 6 7.
    const __m256i mixed = _mm256_hadd_epi32(sum[r][0], sum[r][1]);
    __m256i dot = _mm256_permute4x64_epi64(mixed, _MM_SHUFFLE(3, 1, 2, 0));
    auto* to = reinterpret_cast<__m256i*>(dots + r * 16);
    if constexpr (kAdd) dot = _mm256_add_epi32(dot, _mm256_loadu_si256(to));
    _mm256_storeu_si256(to, dot);
  }
}

// As in simd_sse2.h. Six rows at a time: their sums take 12 registers.
template <int kRows, bool kAdd = false>
inline void CodeDots(const int16_t* codes, int64_t n, const int8_t* tile,
                     int32_t* dots) {
  constexpr int kBlock = 6;
  for (int half = 0; half < 2; ++half) {
    const int8_t* half_tile = tile + 32 * half;
    int32_t* to = dots + 8 * half;
    if constexpr (kRows <= kBlock) {
      BlockDots<kRows, kAdd>(codes, n, half_tile, to);
    } else {
      BlockDots<kBlock, kAdd>(codes, n, half_tile, to);
      BlockDots<kRows - kBlock, kAdd>(codes + kBlock * n, n, half_tile,
                                      to + kBlock * 16);
    }
  }
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SIMD_AVX2_H_
