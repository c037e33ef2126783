#ifndef KERNELS_CPU_QUANTIZE_AVX512_INL_H_
#define KERNELS_CPU_QUANTIZE_AVX512_INL_H_

// Rows of activations to codes with AVX-512, in the layouts of
// linear_kernels.h. Everything is local to the including file.

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/linear_kernels.h"

namespace onegrid::cpu {
namespace {

// The codes of one group, of 32 bits each, and its scale.
struct GroupCodes {
  __m512i first, second;
  float scale;

  // What 8 added to each int4 code adds to a dot product, negated.
  int32_t Offset() const {
    return -8 * _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
  }
};

inline GroupCodes QuantizeGroup(const float* x, float most) {
  const __m512 a = _mm512_loadu_ps(x);
  const __m512 b = _mm512_loadu_ps(x + 16);
  const float amax =
      _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
  const __m512 inverse =
      _mm512_set1_ps(amax > kSmallestAmax ? most / amax : 0.0f);
  return {_mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)),
          _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse)), amax / most};
}

void QuantizeRow(const float* x, int64_t groups, int row, int rows,
                 int8_t* codes, float* scales, int32_t* offsets) {
  for (int64_t g = 0; g < groups; ++g) {
    const GroupCodes group = QuantizeGroup(x + g * kLinearGroup, 127.0f);
    const int64_t at = g * rows + row;
    auto* to = reinterpret_cast<__m128i*>(codes + at * kLinearGroup);
    _mm_storeu_si128(to, _mm512_cvtepi32_epi8(group.first));
    _mm_storeu_si128(to + 1, _mm512_cvtepi32_epi8(group.second));
    scales[at] = group.scale;
    offsets[at] = group.Offset();
  }
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_QUANTIZE_AVX512_INL_H_
