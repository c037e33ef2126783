#ifndef KERNELS_CPU_QUANTIZE_AVX2_INL_H_
#define KERNELS_CPU_QUANTIZE_AVX2_INL_H_

// Quantization of activations for the linear kernels on vectors of 8 floats.
// Everything is local to the including file.

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/linear_kernels.h"

namespace onegrid::cpu {
namespace {

inline __m256 Abs(__m256 x) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

inline float MaxLane(__m256 x) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  m = _mm_max_ss(m, _mm_movehdup_ps(m));
  return _mm_cvtss_f32(m);
}

// Loads 32 floats; returns the largest magnitude among them.
inline float LoadGroup(const float* x, __m256* in) {
  __m256 largest = _mm256_setzero_ps();
  for (int i = 0; i < 4; ++i) {
    in[i] = _mm256_loadu_ps(x + 8 * i);
    largest = _mm256_max_ps(largest, Abs(in[i]));
  }
  return MaxLane(largest);
}

inline int32_t SumLanes(__m256i x) {
  __m128i s =
      _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
  return _mm_cvtsi128_si32(s);
}

void QuantizeRow(const float* x, int64_t groups, int row, int rows,
                 int8_t* codes, float* scales, int32_t* offsets) {
  for (int64_t g = 0; g < groups; ++g) {
    __m256 in[4];
    const float amax = LoadGroup(x + g * kLinearGroup, in);
    const __m256 inverse =
        _mm256_set1_ps(amax > kSmallestAmax ? 127.0f / amax : 0.0f);
    __m256i q[4];
    for (int i = 0; i < 4; ++i) {
      q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(in[i], inverse));
    }
    const int64_t at = g * rows + row;
    // The packs work within 128-bit halves; the permutation restores order.
    const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]),
                                              _mm256_packs_epi32(q[2], q[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + at * kLinearGroup),
                        _mm256_permutevar8x32_epi32(
                            packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    scales[at] = amax / 127.0f;
    offsets[at] = -8 * SumLanes(_mm256_add_epi32(_mm256_add_epi32(q[0], q[1]),
                                                 _mm256_add_epi32(q[2], q[3])));
  }
}

void QuantizeRowWide(const float* x, int64_t groups, int row, int rows,
                     int16_t* codes, float* scales, int32_t* offsets) {
  // 0 2 1 3 of each four numbers of 16 bits.
  const __m256i order =
      _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0,
                       1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
  for (int64_t g = 0; g < groups; ++g) {
    __m256 in[4];
    const float amax = LoadGroup(x + g * kLinearGroup, in);
    const __m256 inverse =
        _mm256_set1_ps(amax > kSmallestAmax ? 32767.0f / amax : 0.0f);
    const int64_t at = g * rows + row;
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < 4; i += 2) {
      const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(in[i], inverse));
      const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(in[i + 1], inverse));
      sum = _mm256_add_epi32(sum, _mm256_add_epi32(a, b));
      // The pack works within 128-bit halves; the permutation restores order.
      const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b),
                                                      _MM_SHUFFLE(3, 1, 2, 0));
      _mm256_storeu_si256(
          reinterpret_cast<__m256i*>(codes + at * kLinearGroup + 8 * i),
          _mm256_shuffle_epi8(packed, order));
    }
    scales[at] = amax / 32767.0f;
    offsets[at] = -8 * SumLanes(sum);
  }
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_QUANTIZE_AVX2_INL_H_
