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

// 32767 / amax, or 0 where a row becomes zero.
inline float InverseStep(float amax) {
  return amax > kSmallestRow ? 32767.0f / amax : 0.0f;
}

void QuantizeQuery(const float* x, int64_t d, float factor, int r,
                   const QueryPanel& panel) {
  const float amax = LargestMagnitude(x, d);
  const F inverse = Set(InverseStep(amax));
  for (int64_t i = 0; i < d; i += kLanes) {
    ToCodes(Load(x + i) * inverse, panel.codes + r * d + i);
  }
  panel.scales[r] = amax / 32767.0f * factor;
}

// Keys and values are fetched so many bytes before they are read, in the order
// in which they are: what hardware fetches by itself ends with a page of memory
// and waits while weights are computed. Not those of full blocks: of these many
// follow each other that read the same.
inline constexpr int64_t kFetchAhead = 8192;

[[gnu::always_inline]] inline void FetchLines(const int8_t* from,
                                              int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(from + at);
}

// Fetches `bytes` bytes that are read kFetchAhead bytes after `at`, where `end`
// is followed by `next`, or, if that is null, by nothing.
[[gnu::always_inline]] inline void FetchAfter(const int8_t* at, int64_t bytes,
                                              const int8_t* end,
                                              const int8_t* next) {
  const int8_t* from = at + kFetchAhead;
  if (from < end) return FetchLines(from, bytes);
  if (next != nullptr) FetchLines(next + (from - end), bytes);
}

// Two tiles of values, a group of columns, of a page.
inline constexpr int64_t kGroupBytes = kValueGroup * kPageTokens;

// Fetches the values that are read kFetchAhead bytes after those of a page and
// group, where groups follow each other, in each of them pages.
[[gnu::always_inline]] inline void FetchValuesAfter(const PartValues& values,
                                                    int page, int64_t group,
                                                    int64_t groups) {
  const int64_t later = group * values.count + page + kFetchAhead / kGroupBytes;
  const int64_t left = later - groups * values.count;
  if (left < 0) {
    FetchLines(values.pages[later % values.count].codes +
                   later / values.count * kGroupBytes,
               kGroupBytes);
  } else if (values.next != nullptr) {
    FetchLines(values.next + left * kGroupBytes, kGroupBytes);
  }
}

inline F ToFloats(const int32_t* x) {
  I lanes;
  __builtin_memcpy(&lanes, x, sizeof(lanes));
  return __builtin_convertvector(lanes, F);
}

// Calls a function with so many rows, 1 to kBlockQueryRows, as its template
// argument.
template <template <int> typename Function, typename... Args>
inline void WithRows(int rows, Args... args) {
  static constexpr decltype(&Function<1>::Run) kByRows[kBlockQueryRows] = {
      Function<1>::Run,  Function<2>::Run,  Function<3>::Run,
      Function<4>::Run,  Function<5>::Run,  Function<6>::Run,
      Function<7>::Run,  Function<8>::Run,  Function<9>::Run,
      Function<10>::Run, Function<11>::Run, Function<12>::Run};
  kByRows[rows - 1](args...);
}

// Scores of one key tile, from its dot products [kRows][kKeyTile].
template <int kRows>
inline void StoreScores(const QueryPanel& panel, const int32_t* dots,
                        const float* key_scales, float* scores,
                        int64_t stride) {
  for (int r = 0; r < kRows; ++r) {
    const F scale = Set(panel.scales[r]);
    for (int t = 0; t < kKeyTile; t += kLanes) {
      Store(scores + r * stride + t,
            ToFloats(dots + r * kKeyTile + t) * (Load(key_scales + t) * scale));
    }
  }
}

// Of one key tile.
template <int kRows>
struct TileScores {
  static void Run(const QueryPanel* panel, int64_t d, const int8_t* keys,
                  const float* key_scales, float* scores, int64_t stride) {
    alignas(64) int32_t dots[kRows * kKeyTile];
    CodeDots<kRows>(panel->codes, d, keys, dots);
    StoreScores<kRows>(*panel, dots, key_scales, scores, stride);
  }
};

void ScoresInt8(const QueryPanel& panel, int64_t d, const int8_t* keys,
                const float* key_scales, const int8_t* next, int first_tile,
                int end_tile, float* scores, int64_t stride) {
  for (int tile = first_tile; tile < end_tile; ++tile) {
    const int64_t first = tile * kKeyTile;
    if (panel.rows < kBlockQueryRows) {
      FetchAfter(keys + first * d, kKeyTile * d, keys + end_tile * kKeyTile * d,
                 next);
    }
    WithRows<TileScores>(panel.rows, &panel, d, keys + first * d,
                         key_scales + first, scores + first, stride);
  }
}

inline float ExpOf(float x) {
  float lanes[kLanes];
  Store(lanes, Exp(Set(x)));
  return lanes[0];
}

void Softmax(float* scores, int64_t tokens, int64_t begin, int64_t end,
             float* max, float* sum) {
  // Whole parts of the sum.
  const int64_t first = begin / kSumLanes * kSumLanes;
  const int64_t last = (end + kSumLanes - 1) / kSumLanes * kSumLanes;
  for (int64_t t = first; t < begin; ++t) scores[t] = kLowestScore;
  for (int64_t t = end; t < last; ++t) scores[t] = kLowestScore;
  F largest = Set(kLowestScore);
  for (int64_t t = first; t < last; t += kLanes) {
    largest = Max(largest, Load(scores + t));
  }
  *max = MaxLane(largest);
  for (int64_t t = first; t < last; t += kLanes) {
    Store(scores + t, Exp(Load(scores + t) - Set(*max)));
  }
  // Exp has a smallest result; what is masked must count nothing at all.
  for (int64_t t = first; t < begin; ++t) scores[t] = 0;
  for (int64_t t = end; t < last; ++t) scores[t] = 0;
  for (int64_t t = 0; t < first; t += kLanes) Store(scores + t, Set(0));
  for (int64_t t = last; t < tokens; t += kLanes) Store(scores + t, Set(0));
  Sums total;
  for (int64_t t = first; t < last; t += kSumLanes) {
    for (F& part : total.parts) {
      part += Load(scores + t + (&part - total.parts) * kLanes);
    }
  }
  *sum = total.Total();
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

// Weights of a part's tokens before those of groups, in 16 bits.
struct TokenWeights {
  alignas(64) int16_t codes[kPartPages][kBlockQueryRows * kPageTokens];
  float units[kBlockQueryRows];  // times 2^15
};

// The largest p * token scale of a row.
inline float LargestWeight(const float* p, const PartValues& values) {
  F largest = Set(0);
  for (int page = 0; page < values.count; ++page) {
    const float* scales = values.pages[page].token_scales;
    for (int64_t t = 0; t < kPageTokens; t += kLanes) {
      largest =
          Max(largest, Load(p + page * kPageTokens + t) * Load(scales + t));
    }
  }
  return MaxLane(largest);
}

// Calls put(page, row, t, weights of a vector of tokens from t on, in units of
// the row's codes) for all of a part, and sets units, times 2^15.
template <typename Put>
inline void QuantizeWeights(const float* p, int rows, const PartValues& values,
                            float* units, Put put) {
  for (int r = 0; r < rows; ++r) {
    const float* row = p + r * kPartTokens;
    const float amax = LargestWeight(row, values);
    const F inverse = Set(InverseStep(amax));
    units[r] = amax / 32767.0f * 32768.0f;
    for (int page = 0; page < values.count; ++page) {
      const float* scales = values.pages[page].token_scales;
      for (int64_t t = 0; t < kPageTokens; t += kLanes) {
        const F weight = Load(row + page * kPageTokens + t) * Load(scales + t);
        put(page, r, t, weight * inverse);
      }
    }
  }
}

// Sums of a group of columns, from the dot products of its two tiles.
template <int kRows>
inline void StoreGroup(const TokenWeights& weights,
                       const int32_t (&dots)[2][kRows * kKeyTile],
                       int64_t group, int64_t d, float* sums) {
  for (int r = 0; r < kRows; ++r) {
    for (int64_t i = 0; i < kValueGroup; i += kLanes) {
      const int32_t* dot = dots[i / kKeyTile] + r * kKeyTile + i % kKeyTile;
      Store(sums + r * d + group * kValueGroup + i,
            ToFloats(dot) * Set(weights.units[r]));
    }
  }
}
static_assert(kValueGroup == 2 * kKeyTile);

// One group of columns. Dots::Run<kRows, kAdd>(codes, tile, dots): CodeDots
// with both tiles of a group, which follow each other.
template <int kRows, typename Dots>
inline void SumGroupBy(const TokenWeights& weights, const PartValues& values,
                       int64_t group, int64_t d, float* sums) {
  alignas(64) int16_t codes[kRows * kPageTokens];
  alignas(64) int32_t dots[2][kRows * kKeyTile];
  for (int page = 0; page < values.count; ++page) {
    const PageValues& v = values.pages[page];
    if (kRows < kBlockQueryRows) {
      FetchValuesAfter(values, page, group, d / kValueGroup);
    }
    MultiplyCodes(weights.codes[page], kRows,
                  v.group_scales + group * kPageTokens, codes);
    const int8_t* tile = v.codes + group * kGroupBytes;
    if (page == 0) {
      Dots::template Run<kRows, false>(codes, tile, dots);
    } else {
      Dots::template Run<kRows, true>(codes, tile, dots);
    }
  }
  StoreGroup<kRows>(weights, dots, group, d, sums);
}

struct DotsOfEach {
  template <int kRows, bool kAdd>
  static void Run(const int16_t* codes, const int8_t* tile,
                  int32_t (&dots)[2][kRows * kKeyTile]) {
    for (int half = 0; half < 2; ++half) {
      CodeDots<kRows, kAdd>(codes, kPageTokens,
                            tile + half * kKeyTile * kPageTokens, dots[half]);
    }
  }
};

template <int kRows>
struct SumGroup {
  static void Run(const TokenWeights* weights, const PartValues* values,
                  int64_t group, int64_t d, float* sums) {
    SumGroupBy<kRows, DotsOfEach>(*weights, *values, group, d, sums);
  }
};

// With a SumGroup.
template <template <int> typename Group>
void SumValuesBy(const float* p, int rows, const PartValues& values, int64_t d,
                 float* sums) {
  TokenWeights weights;
  QuantizeWeights(p, rows, values, weights.units,
                  [&](int page, int r, int64_t t, F x) {
                    ToCodes(x, weights.codes[page] + r * kPageTokens + t);
                  });
  for (int64_t group = 0; group < d / kValueGroup; ++group) {
    WithRows<Group>(rows, &weights, &values, group, d, sums);
  }
}

// Columns that AddColumns takes at a time: a weight is spread out once for two
// vectors of them.
inline constexpr int64_t kColumns = 2 * kLanes;

// Columns [0, kColumns) of kRows rows: sums [kRows][d] += the tokens' values
// [tokens][d] weighted by p [kRows][kPartTokens].
template <int kRows>
inline void AddColumns(const float* p, const float* v, int64_t tokens,
                       int64_t d, float* sums) {
  F left[kRows], right[kRows];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    left[r] = Load(sums + r * d);
    right[r] = Load(sums + r * d + kLanes);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    const F v_left = Load(v + t * d), v_right = Load(v + t * d + kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const F weight = Set(p[r * kPartTokens + t]);
      left[r] = Fma(weight, v_left, left[r]);
      right[r] = Fma(weight, v_right, right[r]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    Store(sums + r * d, left[r]);
    Store(sums + r * d + kLanes, right[r]);
  }
}

// Blocks of kValueRows, 4 and 1 rows.
void AddValuesF32(const float* p, int rows, const float* v, int64_t tokens,
                  int64_t d, float* sums) {
  for (int64_t i = 0; i < d; i += kColumns) {
    int r = 0;
    for (; r + kValueRows <= rows; r += kValueRows) {
      AddColumns<kValueRows>(p + r * kPartTokens, v + i, tokens, d,
                             sums + r * d + i);
    }
    for (; r + 4 <= rows; r += 4) {
      AddColumns<4>(p + r * kPartTokens, v + i, tokens, d, sums + r * d + i);
    }
    for (; r < rows; ++r) {
      AddColumns<1>(p + r * kPartTokens, v + i, tokens, d, sums + r * d + i);
    }
  }
}

inline constexpr AttentionKernels kLocalAttentionKernels = {
    kBlockQueryRows, QuantizeKey, QuantizeQuery,         ScoresInt8,
    Softmax,         Join,        SumValuesBy<SumGroup>, AddValuesF32,
};

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_ATTENTION_KERNELS_INL_H_
