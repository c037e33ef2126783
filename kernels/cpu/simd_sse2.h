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
// Rows of two vectors of sums each that the registers hold.
inline constexpr int kValueRows = 6;

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

// The same in 16 bits, |x| <= 32767.
inline void ToInt16(F x, int16_t* p) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi32(_mm_cvtps_epi32(x), __m128i()));
}

// Whether the codes of a query lie in the order 0 2 1 3 of each four. Why they
// may: ActivationPanel.
inline constexpr bool kSwapQueryCodes = true;

// dots[r * 16 + t] = sum over i < d of codes[r][i] * (keys[t][i] - 128) of
// kRows queries of a QueryPanel and 16 keys; keys is one key tile
// [d / 4][16][4]. Below 2^31, since d is at most 512.
template <int kRows>
inline void QueryDots(const int16_t* codes, const int32_t* sums, int64_t d,
                      const uint8_t* keys, int32_t* dots) {
  constexpr int kOrder[4] = {0, 2, 1, 3};
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < 16; ++t) {
      // Sums of unsigned keys may wrap; less the offset they are right again.
      auto dot = static_cast<uint32_t>(-128 * sums[r]);
      for (int64_t i = 0; i < d; ++i) {
        dot += static_cast<uint32_t>(codes[r * d + i / 4 * 4 + kOrder[i % 4]] *
                                     keys[i / 4 * 64 + 4 * t + i % 4]);
      }
      dots[r * 16 + t] = static_cast<int32_t>(dot);
    }
  }
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SIMD_SSE2_H_
