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
// Past the caches; p is aligned.
inline void StoreStreamed(float* p, F x) { _mm_stream_ps(p, x); }
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
inline float MaxLane(F x) {
  x = Max(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(Max(x, _mm_shuffle_ps(x, x, 1)));
}

// x rounded to nearest even, |x| <= 127.
inline void ToInt8(F x, int8_t* p) {
  const __m128i words = _mm_packs_epi32(_mm_cvtps_epi32(x), __m128i());
  const int32_t bytes = _mm_cvtsi128_si32(_mm_packs_epi16(words, words));
  __builtin_memcpy(p, &bytes, sizeof(bytes));
}

// The same in 16 bits, |x| <= 32767, in the order that CodeDots takes: 0 2 1 3
// of each four. Why: ActivationPanel.
inline void ToCodes(F x, int16_t* p) {
  const __m128i words = _mm_packs_epi32(_mm_cvtps_epi32(x), __m128i());
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p),
                   _mm_shufflelo_epi16(words, _MM_SHUFFLE(3, 1, 2, 0)));
}

// products[r][t] = (codes[r][t] * factors[t] + 2^14) / 2^15, rounded down, for
// 64 t: codes and products [rows][64] in the order of CodeDots, factors as they
// come. All are above -2^15.
inline void MultiplyCodes(const int16_t* codes, int rows,
                          const int16_t* factors, int16_t* products) {
  constexpr int kOrder[4] = {0, 2, 1, 3};
  for (int i = 0; i < rows * 64; ++i) {
    const int32_t factor = factors[i % 64 / 4 * 4 + kOrder[i % 4]];
    products[i] = static_cast<int16_t>((codes[i] * factor + (1 << 14)) >> 15);
  }
}

// dots[r * 16 + t] = sum over i < n of codes[r][i] * tile[t][i], for kRows rows
// of n codes and one tile [n / 4][16][4] of signed bytes; with kAdd, added to
// what is there. Sums are below 2^31, since they are over 512 i at most.
template <int kRows, bool kAdd = false>
inline void CodeDots(const int16_t* codes, int64_t n, const int8_t* tile,
                     int32_t* dots) {
  constexpr int kOrder[4] = {0, 2, 1, 3};
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < 16; ++t) {
      int32_t dot = kAdd ? dots[r * 16 + t] : 0;
      for (int64_t i = 0; i < n; ++i) {
        dot += codes[r * n + i / 4 * 4 + kOrder[i % 4]] *
               tile[i / 4 * 64 + 4 * t + i % 4];
      }
      dots[r * 16 + t] = dot;
    }
  }
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SIMD_SSE2_H_
