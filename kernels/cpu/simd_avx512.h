#ifndef KERNELS_CPU_SIMD_AVX512_H_
#define KERNELS_CPU_SIMD_AVX512_H_

// Vectors of 16 floats: the functions of simd_sse2.h for AVX-512 with VNNI.

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/dot_codes_avx512_inl.h"

namespace onegrid::cpu {
namespace {

using F = __m512;
using I = int32_t __attribute__((vector_size(64)));
inline constexpr int kLanes = 16;
inline constexpr int kValueRows = 12;

inline F Load(const float* p) { return _mm512_loadu_ps(p); }
inline void Store(float* p, F x) { _mm512_storeu_ps(p, x); }
// Past the caches; p is aligned.
inline void StoreStreamed(float* p, F x) { _mm512_stream_ps(p, x); }
inline F Set(float x) { return _mm512_set1_ps(x); }
inline F Max(F a, F b) { return _mm512_max_ps(a, b); }
inline F Min(F a, F b) { return _mm512_min_ps(a, b); }
inline F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F Abs(F x) { return _mm512_abs_ps(x); }
inline float MaxLane(F x) { return _mm512_reduce_max_ps(x); }

inline void ToInt8(F x, int8_t* p) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}

// 16 bits, each four in the order 0 2 1 3.
inline void ToCodes(F x, int16_t* p) {
  const __m256i words = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x));
  constexpr int64_t kLower = 0x0706'0302'0504'0100;
  constexpr int64_t kUpper = 0x0f0e'0b0a'0d0c'0908;
  _mm256_storeu_si256(
      reinterpret_cast<__m256i*>(p),
      _mm256_shuffle_epi8(words,
                          _mm256_set_epi64x(kUpper, kLower, kUpper, kLower)));
}

// As in simd_sse2.h.
inline void MultiplyCodes(const int16_t* codes, int rows,
                          const int16_t* factors, int16_t* products) {
  const auto swapped = [](const int16_t* p) {
    const __m512i x = _mm512_loadu_si512(p);
    constexpr int kOrder = _MM_SHUFFLE(3, 1, 2, 0);
    return _mm512_shufflehi_epi16(_mm512_shufflelo_epi16(x, kOrder), kOrder);
  };
  const __m512i left = swapped(factors), right = swapped(factors + 32);
  for (int i = 0; i < rows * 64; i += 64) {
    _mm512_storeu_si512(
        products + i, _mm512_mulhrs_epi16(_mm512_loadu_si512(codes + i), left));
    _mm512_storeu_si512(
        products + i + 32,
        _mm512_mulhrs_epi16(_mm512_loadu_si512(codes + i + 32), right));
  }
}

// As in simd_sse2.h.
template <int kRows, bool kAdd = false>
inline void CodeDots(const int16_t* codes, int64_t n, const int8_t* tile,
                     int32_t* dots) {
  __m512i sum[kRows];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    sum[r] = kAdd ? _mm512_loadu_si512(dots + r * 16) : _mm512_setzero_si512();
  }
  for (int64_t i = 0; i < n; i += 4) {
    const __m512i line = _mm512_loadu_si512(tile + 16 * i);
    const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(line, 8), 8);
    const __m512i odd = _mm512_srai_epi16(line, 8);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const int16_t* quad = codes + r * n + i;
      AddPair(even, quad, sum[r]);
      AddPair(odd, quad + 2, sum[r]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) _mm512_storeu_si512(dots + r * 16, sum[r]);
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SIMD_AVX512_H_
