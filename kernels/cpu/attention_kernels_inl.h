#ifndef KERNELS_CPU_ATTENTION_KERNELS_INL_H_
#define KERNELS_CPU_ATTENTION_KERNELS_INL_H_

// The ops of attention_kernels.h on the vectors of a simd_*.h, which is
// included first. Everything is local to the including file.

#include <cstdint>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/vector_math_inl.h"

namespace onegrid::cpu {
namespace {

// Query rows of a block, but for AMX.
inline constexpr int kBlockQueryRows = 12;
// Below this a row becomes zero: 127 / amax would leave the range of a float.
inline constexpr float kSmallestRow = 1e-30f;
// Lower than any score.
inline constexpr float kLowestScore = -3.0e38f;

inline float LargestMagnitude(const float* x, int64_t d) {
  F largest = Set(0);
  for (int64_t i = 0; i < d; i += kLanes)
    largest = Max(largest, Abs(Load(x + i)));
  return MaxLane(largest);
}

void QuantizeKey(const float* x, int64_t d, int8_t* codes, float* scale) {
  const float amax = LargestMagnitude(x, d);
  const F inverse = Set(amax > kSmallestRow ? 127.0f / amax : 0.0f);
  for (int64_t i = 0; i < d; i += kLanes)
    ToInt8(Load(x + i) * inverse, codes + i);
  *scale = amax / 127.0f;
}

// The codes in their order, sum and scale into the panel.
inline void QuantizeQueryCodes(const float* x, int64_t d, float factor, int r,
                               const QueryPanel& panel, int16_t* codes) {
  const float amax = LargestMagnitude(x, d);
  const F inverse = Set(amax > kSmallestRow ? 32767.0f / amax : 0.0f);
  int32_t sum = 0;
  for (int64_t i = 0; i < d; i += kLanes) {
    ToInt16(Load(x + i) * inverse, codes + i);
  }
  for (int64_t i = 0; i < d; ++i) sum += codes[i];
  panel.sums[r] = sum;
  panel.scales[r] = amax / 32767.0f * factor;
}

void QuantizeQuery(const float* x, int64_t d, float factor, int r,
                   const QueryPanel& panel) {
  int16_t* codes = panel.codes + r * d;
  QuantizeQueryCodes(x, d, factor, r, panel, codes);
  for (int64_t i = 0; kSwapQueryCodes && i < d; i += 4) {
    const int16_t second = codes[i + 1];
    codes[i + 1] = codes[i + 2];
    codes[i + 2] = second;
  }
}

template <int kRows>
void ScoresInt8Rows(const QueryPanel& panel, int64_t d, const uint8_t* keys,
                    const float* key_scales, float* scores, int64_t stride) {
  alignas(64) int32_t dots[kRows * kKeyTile];
  QueryDots<kRows>(panel.codes, panel.sums, d, keys, dots);
  for (int r = 0; r < kRows; ++r) {
    const F scale = Set(panel.scales[r]);
    for (int t = 0; t < kKeyTile; t += kLanes) {
      I dot;
      __builtin_memcpy(&dot, dots + r * kKeyTile + t, sizeof(dot));
      Store(scores + r * stride + t,
            __builtin_convertvector(dot, F) * (Load(key_scales + t) * scale));
    }
  }
}

void ScoresInt8(const QueryPanel& panel, int64_t d, const uint8_t* keys,
                const float* key_scales, int first_tile, int end_tile,
                float* scores, int64_t stride) {
  using Function = void (*)(const QueryPanel&, int64_t, const uint8_t*,
                            const float*, float*, int64_t);
  static constexpr Function kByRows[kBlockQueryRows] = {
      ScoresInt8Rows<1>,  ScoresInt8Rows<2>,  ScoresInt8Rows<3>,
      ScoresInt8Rows<4>,  ScoresInt8Rows<5>,  ScoresInt8Rows<6>,
      ScoresInt8Rows<7>,  ScoresInt8Rows<8>,  ScoresInt8Rows<9>,
      ScoresInt8Rows<10>, ScoresInt8Rows<11>, ScoresInt8Rows<12>};
  for (int tile = first_tile; tile < end_tile; ++tile) {
    const int64_t first = tile * kKeyTile;
    kByRows[panel.rows - 1](panel, d, keys + first * d, key_scales + first,
                            scores + first, stride);
  }
}

inline float ExpOf(float x) {
  float lanes[kLanes];
  Store(lanes, Exp(Set(x)));
  return lanes[0];
}

float SoftmaxStep(float* scores, int64_t begin, int64_t end, float* max,
                  float* sum) {
  if (begin >= end) {
    for (int64_t t = 0; t < kPageTokens; ++t) scores[t] = 0;
    return 1.0f;
  }
  for (int64_t t = 0; t < begin; ++t) scores[t] = kLowestScore;
  for (int64_t t = end; t < kPageTokens; ++t) scores[t] = kLowestScore;
  F largest = Set(*max);
  for (int64_t t = 0; t < kPageTokens; t += kLanes) {
    largest = Max(largest, Load(scores + t));
  }
  const float new_max = MaxLane(largest);
  for (int64_t t = 0; t < kPageTokens; t += kLanes) {
    Store(scores + t, Exp(Load(scores + t) - Set(new_max)));
  }
  // Exp has a smallest result; what is masked must count nothing at all.
  for (int64_t t = 0; t < begin; ++t) scores[t] = 0;
  for (int64_t t = end; t < kPageTokens; ++t) scores[t] = 0;
  Sums total;
  for (int64_t t = 0; t < kPageTokens; t += kSumLanes) {
    for (F& part : total.parts) {
      part += Load(scores + t + (&part - total.parts) * kLanes);
    }
  }
  float correction = 1.0f;
  if (new_max > *max) correction = ExpOf(*max - new_max);
  *max = new_max;
  *sum = *sum * correction + total.Total();
  return correction;
}

void Join(float later_max, float later_sum, const float* later_values,
          int64_t d, float* max, float* sum, float* values) {
  const float common = later_max > *max ? later_max : *max;
  const float earlier = ExpOf(*max - common), later = ExpOf(later_max - common);
  for (int64_t i = 0; i < d; i += kLanes) {
    Store(values + i, Fma(Load(later_values + i), Set(later),
                          Load(values + i) * Set(earlier)));
  }
  *max = common;
  *sum = *sum * earlier + later_sum * later;
}

// Columns that AddValuesRows takes at a time: a weight is spread out once for
// two vectors of them. They lie in one group of values.
inline constexpr int64_t kColumns = 2 * kLanes;
inline constexpr int64_t kValueGroup = 32;
inline constexpr int64_t kLineBytes = 64;  // of the cache

// Two vectors of a token's values.
struct Pair {
  F left, right;
};

// kColumns values of token t from column i on. Each group of them fetches a
// line of `next` into the L2 cache: so memory is read all the time, not in
// bursts that a core has to wait for.
struct Int8Values {
  const int8_t* v;
  const float* scales;
  int64_t d;
  const uint8_t* next;  // may be null
  Pair At(int64_t t, int64_t i) const {
    if (next != nullptr && i % kValueGroup == 0) {
      constexpr int kToL2 = 2;
      const int64_t line = i / kValueGroup * kPageTokens + t;
      __builtin_prefetch(next + kLineBytes * line, /*rw=*/0, kToL2);
    }
    const F scale = Set(scales[t * (d / kValueGroup) + i / kValueGroup]);
    const int8_t* at = v + t * d + i;
    return {FromInt8(at) * scale, FromInt8(at + kLanes) * scale};
  }
};

struct F32Values {
  const float* v;
  int64_t stride;
  Pair At(int64_t t, int64_t i) const {
    const float* at = v + t * stride + i;
    return {Load(at), Load(at + kLanes)};
  }
};

// Columns [i, i + kColumns) of kRows rows: sums [kRows][d] += the tokens'
// values weighted by p [kRows][kPageTokens].
template <int kRows, typename Values>
inline void AddColumns(const float* p, Values values, int64_t column,
                       int64_t tokens, int64_t d, float* sums) {
  F left[kRows], right[kRows];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    left[r] = Load(sums + r * d);
    right[r] = Load(sums + r * d + kLanes);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    const Pair v = values.At(t, column);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const F weight = Set(p[r * kPageTokens + t]);
      left[r] = Fma(weight, v.left, left[r]);
      right[r] = Fma(weight, v.right, right[r]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    Store(sums + r * d, left[r]);
    Store(sums + r * d + kLanes, right[r]);
  }
}

// Blocks of kValueRows, 4 and 1 rows.
template <typename Values>
inline void AddRows(const float* p, int rows, Values values, int64_t column,
                    int64_t tokens, int64_t d, float* sums) {
  int r = 0;
  for (; r + kValueRows <= rows; r += kValueRows) {
    AddColumns<kValueRows>(p + r * kPageTokens, values, column, tokens, d,
                           sums + r * d);
  }
  for (; r + 4 <= rows; r += 4) {
    AddColumns<4>(p + r * kPageTokens, values, column, tokens, d, sums + r * d);
  }
  for (; r < rows; ++r) {
    AddColumns<1>(p + r * kPageTokens, values, column, tokens, d, sums + r * d);
  }
}

// Where several blocks of rows need them, values are made floats once.
void AddValuesInt8(const float* p, int rows, const int8_t* v,
                   const float* v_scales, int64_t tokens, int64_t d,
                   const uint8_t* next, float* sums) {
  const Int8Values values = {v, v_scales, d, next};
  for (int64_t i = 0; i < d; i += kColumns) {
    if (rows <= kValueRows) {
      AddRows(p, rows, values, i, tokens, d, sums + i);
      continue;
    }
    alignas(64) float floats[kPageTokens * kColumns];
    for (int64_t t = 0; t < tokens; ++t) {
      const Pair pair = values.At(t, i);
      Store(floats + t * kColumns, pair.left);
      Store(floats + t * kColumns + kLanes, pair.right);
    }
    AddRows(p, rows, F32Values{floats, kColumns}, 0, tokens, d, sums + i);
  }
}

void AddValuesF32(const float* p, int rows, const float* v, int64_t tokens,
                  int64_t d, float* sums) {
  for (int64_t i = 0; i < d; i += kColumns) {
    AddRows(p, rows, F32Values{v, d}, i, tokens, d, sums + i);
  }
}

inline constexpr AttentionKernels kLocalAttentionKernels = {
    kBlockQueryRows, QuantizeKey, QuantizeQuery, ScoresInt8,
    SoftmaxStep,     Join,        AddValuesInt8, AddValuesF32,
};

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_ATTENTION_KERNELS_INL_H_
