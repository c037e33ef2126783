// Of attention_kernels_avx512.cc, for AMD's processors: the same sums of
// integers, two tiles at a time, since Zen 5 loads two codes in a cycle and
// multiplies two vectors (linear_kernels_zen.cc).
#include "kernels/cpu/simd_avx512.h"
// After the vectors it works on.
#include "kernels/cpu/attention_kernels_inl.h"

namespace onegrid::cpu {
namespace {

// Most rows whose sums for two tiles are in registers.
constexpr int kPairRows = 6;

// The even and the odd bytes of a line in 16 bits, with signs.
struct WideLine {
  __m512i even, odd;

  explicit WideLine(const int8_t* at) {
    const __m512i line = _mm512_loadu_si512(at);
    even = _mm512_srai_epi16(_mm512_slli_epi16(line, 8), 8);
    odd = _mm512_srai_epi16(line, 8);
  }
};

// CodeDots of kRows rows with two tiles.
template <int kRows, bool kAdd>
inline void PairOfDots(const int16_t* codes, int64_t n, const int8_t* tile,
                       const int8_t* other, int32_t* dots,
                       int32_t* other_dots) {
  __m512i sum[kRows], other_sum[kRows];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    const __m512i none = _mm512_setzero_si512();
    sum[r] = kAdd ? _mm512_load_si512(dots + r * kKeyTile) : none;
    other_sum[r] = kAdd ? _mm512_load_si512(other_dots + r * kKeyTile) : none;
  }
  for (int64_t i = 0; i < n; i += 4) {
    const WideLine line(tile + kKeyTile * i), other_line(other + kKeyTile * i);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const int16_t* quad = codes + r * n + i;
      const __m512i first = Spread(quad), second = Spread(quad + 2);
      sum[r] = _mm512_dpwssd_epi32(sum[r], line.even, first);
      other_sum[r] = _mm512_dpwssd_epi32(other_sum[r], other_line.even, first);
      sum[r] = _mm512_dpwssd_epi32(sum[r], line.odd, second);
      other_sum[r] = _mm512_dpwssd_epi32(other_sum[r], other_line.odd, second);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    _mm512_store_si512(dots + r * kKeyTile, sum[r]);
    _mm512_store_si512(other_dots + r * kKeyTile, other_sum[r]);
  }
}

// The same of any rows; dots are added to what they were, or not.
template <int kRows, bool kAdd>
inline void CodeDotsOfPair(const int16_t* codes, int64_t n, const int8_t* tile,
                           const int8_t* other,
                           int32_t (&dots)[2][kRows * kKeyTile]) {
  constexpr int kFirst = kRows <= kPairRows ? kRows : (kRows + 1) / 2;
  PairOfDots<kFirst, kAdd>(codes, n, tile, other, dots[0], dots[1]);
  if constexpr (kFirst < kRows) {
    PairOfDots<kRows - kFirst, kAdd>(codes + kFirst * n, n, tile, other,
                                     dots[0] + kFirst * kKeyTile,
                                     dots[1] + kFirst * kKeyTile);
  }
}

// Of a whole block, with two tiles. Not inlined: GCC 12 then has too few
// registers for where rows lie, 1.1 times the time.
[[gnu::noinline]] void PairScores(const QueryPanel& panel, int64_t d,
                                  const int8_t* keys, const float* key_scales,
                                  float* scores, int64_t stride) {
  alignas(64) int32_t dots[2][kBlockQueryRows * kKeyTile];
  CodeDotsOfPair<kBlockQueryRows, false>(panel.codes, d, keys,
                                         keys + kKeyTile * d, dots);
  for (int t = 0; t < 2; ++t) {
    StoreScores<kBlockQueryRows>(panel, dots[t], key_scales + t * kKeyTile,
                                 scores + t * kKeyTile, stride);
  }
}

// Keys of fewer rows come from memory, which is read fastest in one place.
void ScoresInt8Pairs(const QueryPanel& panel, int64_t d, const int8_t* keys,
                     const float* key_scales, const int8_t* next,
                     int first_tile, int end_tile, float* scores,
                     int64_t stride) {
  int tile = first_tile;
  for (; panel.rows == kBlockQueryRows && tile + 2 <= end_tile; tile += 2) {
    const int64_t first = tile * kKeyTile;
    PairScores(panel, d, keys + first * d, key_scales + first, scores + first,
               stride);
  }
  ScoresInt8(panel, d, keys, key_scales, next, tile, end_tile, scores, stride);
}

struct DotsOfBoth {
  template <int kRows, bool kAdd>
  static void Run(const int16_t* codes, const int8_t* tile,
                  int32_t (&dots)[2][kRows * kKeyTile]) {
    CodeDotsOfPair<kRows, kAdd>(codes, kPageTokens, tile,
                                tile + kKeyTile * kPageTokens, dots);
  }
};

template <int kRows>
struct SumPair {
  static void Run(const TokenWeights* weights, const PartValues* values,
                  int64_t group, int64_t d, float* sums) {
    SumGroupBy<kRows, DotsOfBoth>(*weights, *values, group, d, sums);
  }
};

}  // namespace

const AttentionKernels kAttentionKernelsZen = {
    kBlockQueryRows, QuantizeKey, QuantizeQuery,        ScoresInt8Pairs,
    Softmax,         Join,        SumValuesBy<SumPair>, AddValuesF32,
};

}  // namespace onegrid::cpu
