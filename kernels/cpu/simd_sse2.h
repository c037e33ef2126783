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

// kLanes columns of query r of `rows` from column i on into `codes`, where
// QueryDots wants them: here [d / 32][rows][high, low][32].
inline void StoreQuery(F high, F low, int r, int64_t i, int64_t, int rows,
                       int8_t* codes) {
  int8_t* to = codes + (i / 32 * 2 * rows + 2 * r) * 32 + i % 32;
  ToInt8(high, to);
  ToInt8(low, to + 32);
}

// dots[r * 16 + t] = sum over i < d of (254 * high[r][i] + low[r][i]) *
// (keys[t][i] - 128) of kRows queries and 16 keys; keys is one key tile
// [d / 4][16][4], sums that of the query panel. Below 2^31: d is at most 512, a
// query's code 127 * 255, a key's 128.
template <int kRows>
inline void QueryDots(const int8_t* codes, const int32_t* sums, int64_t d,
                      const uint8_t* keys, int32_t* dots) {
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < 16; ++t) {
      int32_t terms[2];
      for (int term = 0; term < 2; ++term) {
        int32_t dot = -128 * sums[2 * r + term];
        for (int64_t i = 0; i < d; ++i) {
          dot += codes[(i / 32 * 2 * kRows + 2 * r + term) * 32 + i % 32] *
                 keys[i / 4 * 64 + 4 * t + i % 4];
        }
        terms[term] = dot;
      }
      dots[r * 16 + t] = 254 * terms[0] + terms[1];
    }
  }
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SIMD_SSE2_H_
