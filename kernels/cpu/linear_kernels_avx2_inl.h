#ifndef KERNELS_CPU_LINEAR_KERNELS_AVX2_INL_H_
#define KERNELS_CPU_LINEAR_KERNELS_AVX2_INL_H_

// The linear kernels on vectors of 8 floats, compiled for AVX2, FMA and F16C,
// and once more with AVX-VNNI besides, which multiplies and adds in one step.
// Everything is local to the including file.

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/quantize_avx2_inl.h"

namespace onegrid::cpu {
namespace {

// Activation rows handled together: 4 x 8 outputs use 8 of 16 registers for
// sums, the rest for weights and temporaries. So do 2 x 16: one or two rows
// take both halves of a tile at once, so that it is read in one sweep.
constexpr int kBlockRows = 4;
constexpr int kSweepRows = 2;
// Where few other instructions are needed than products and sums, 4 x 16: the
// sums of a group take 8 registers, those over groups pass through memory. Four
// columns of a row are spread over a vector once for 16 outputs, which is 1.2
// times as fast with 8 rows as 4 x 8. 6 x 16 are slower: too few registers.

// How far ahead of a sweep memory is fetched.
constexpr int64_t kFetchBytes = 2048;

// Four consecutive activation codes, or two of 16 bits, in every 32-bit lane.
inline __m256i Quad(const int8_t* codes) {
  int32_t quad;
  __builtin_memcpy(&quad, codes, sizeof(quad));
  return _mm256_set1_epi32(quad);
}

inline __m256i Pair(const int16_t* codes) {
  int32_t pair;
  __builtin_memcpy(&pair, codes, sizeof(pair));
  return _mm256_set1_epi32(pair);
}

// dot[h][m] += weights of 16 bits of half h times columns i and i + 1, as they
// lie, of rows m.
template <int kRows, int kHalves>
inline void AddPairs(const __m256i* weights, const int16_t* codes, int i,
                     __m256i (*dot)[kRows]) {
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
    const __m256i pair = Pair(codes + m * kLinearGroup + i);
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
#ifdef __AVXVNNI__
      dot[h][m] = _mm256_dpwssd_avx_epi32(dot[h][m], weights[h], pair);
#else
      dot[h][m] =
          _mm256_add_epi32(dot[h][m], _mm256_madd_epi16(weights[h], pair));
#endif
    }
  }
}

inline __m256i LoadBytes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

// A place from `bytes` of its lines on.
template <typename Layout>
inline TileBytes Moved(TileBytes place, int64_t bytes) {
  place.at += bytes;
  if constexpr (Layout::kLowerBytes != 0) place.lower += bytes;
  return place;
}

// Line j of a place. Of two planes, line j / 2 of each has the nibbles of lines
// j and j + 1 in its lower and its upper ones.
template <typename Layout>
inline __m256i LoadLine(TileBytes place, int j) {
  if constexpr (Layout::kLowerBytes == 0) return LoadBytes(place.at + 64 * j);
  const __m256i low_bits = _mm256_set1_epi8(15);
  const __m256i upper = LoadBytes(place.at + 64 * (j / 2));
  const __m256i lower = LoadBytes(place.lower + 64 * (j / 2));
  if (j % 2 == 0) {
    return _mm256_or_si256(
        _mm256_slli_epi16(_mm256_and_si256(upper, low_bits), 4),
        _mm256_and_si256(lower, low_bits));
  }
  return _mm256_or_si256(
      _mm256_andnot_si256(low_bits, upper),
      _mm256_and_si256(_mm256_srli_epi16(lower, 4), low_bits));
}

inline __m256 HalfScales(const uint8_t* scales) {
  return _mm256_cvtph_ps(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales)));
}

template <int kRows>
inline void AddGroup(const __m256i* dot, const uint8_t* weight_scales,
                     const float* scales, __m256* total) {
  const __m256 weight = HalfScales(weight_scales);
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
    total[m] =
        _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(dot[m]), weight),
                        _mm256_set1_ps(scales[m]), total[m]);
  }
}

// What the bias of a format's codes adds to a dot product, negated.
template <typename Format>
inline int32_t OffsetOf(int32_t offset) {
  // Which the panel's are of: those for odd codes are of these.
  constexpr int kPanelBias =
      Format::kStep == 1 ? Int4Layout::kBias : Format::kBias;
  if constexpr (Format::kBias < kPanelBias) {
    return offset / (kPanelBias / Format::kBias);
  } else {
    return offset * (Format::kBias / kPanelBias);
  }
}

// Each format: dot[m] = the dot products of group g of rows m of activations,
// `codes`, with 8 rows of weights, whose place begins at `place`, a half of a
// tile's lines.

struct Int2Format : Int2Layout {
  // A sum of 16 products is at most 16 * 3 * 127.
  template <int kRows>
  static void Dot(const int8_t* codes, const int32_t* offsets, int64_t g,
                  TileBytes place, __m256i* dot) {
    const __m256i low_bits = _mm256_set1_epi8(3);
    const uint8_t* lines = place.at + 128 * (g % 2);
    __m256i pairs[kRows];
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) pairs[m] = _mm256_setzero_si256();
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m256i four = LoadBytes(lines + 64 * j);
#pragma GCC unroll 4
      for (int f = 0; f < 4; ++f) {
        const __m256i weights =
            _mm256_and_si256(_mm256_srli_epi16(four, 2 * f), low_bits);
#pragma GCC unroll 4
        for (int m = 0; m < kRows; ++m) {
          const int8_t* row = codes + m * kLinearGroup + 16 * j + 4 * f;
          pairs[m] = _mm256_add_epi16(pairs[m],
                                      _mm256_maddubs_epi16(weights, Quad(row)));
        }
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) {
      dot[m] =
          _mm256_add_epi32(_mm256_madd_epi16(pairs[m], _mm256_set1_epi16(1)),
                           _mm256_set1_epi32(OffsetOf<Int2Layout>(offsets[m])));
    }
  }
};

template <typename Layout>
struct NibbleFormat : Layout {
  // The same of kHalves halves: dot[h][m]. A sum of 16 products stays within 16
  // bits: 16 * 15 * 127 = 30,480.
  template <int kRows, int kHalves>
  static void Dots(const int8_t* codes, const int32_t* offsets, TileBytes place,
                   __m256i (*dot)[kRows]) {
    const __m256i low_bits = _mm256_set1_epi8(15);
    const __m256i step = _mm256_set1_epi16(Layout::kStep);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      __m256i weights[kHalves];
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        const __m256i both = LoadBytes(place.at + 64 * (i / 2) + 32 * h);
        weights[h] = _mm256_and_si256(
            i % 2 == 0 ? both : _mm256_srli_epi16(both, 4), low_bits);
      }
#pragma GCC unroll 4
      for (int m = 0; m < kRows; ++m) {
        const __m256i quad = Quad(codes + m * kLinearGroup + 4 * i);
#pragma GCC unroll 2
        for (int h = 0; h < kHalves; ++h) {
          const __m256i pairs = _mm256_maddubs_epi16(weights[h], quad);
          dot[h][m] = i == 0 ? pairs : _mm256_add_epi16(dot[h][m], pairs);
        }
      }
    }
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
#pragma GCC unroll 4
      for (int m = 0; m < kRows; ++m) {
        dot[h][m] =
            _mm256_add_epi32(_mm256_madd_epi16(dot[h][m], step),
                             _mm256_set1_epi32(OffsetOf<Layout>(offsets[m])));
      }
    }
  }
};

using Int4Format = NibbleFormat<Int4Layout>;
using OddInt4Format = NibbleFormat<OddInt4Layout>;

template <typename Layout>
struct ByteFormat : Layout {
  // Codes are made signed again and multiplied as |w| * (a * sign(w)): a pair
  // is at most 2 * 128 * 127 = 32,512, which 16 bits hold.
  template <int kRows>
  static void Dot(const int8_t* codes, const int32_t*, int64_t, TileBytes place,
                  __m256i* dot) {
    const __m256i bias = _mm256_set1_epi8(-128);
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) dot[m] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m256i weights =
          _mm256_xor_si256(LoadLine<Layout>(place, j), bias);
      const __m256i magnitude = _mm256_abs_epi8(weights);
#pragma GCC unroll 4
      for (int m = 0; m < kRows; ++m) {
        const __m256i a =
            _mm256_sign_epi8(Quad(codes + m * kLinearGroup + 4 * j), weights);
        dot[m] = _mm256_add_epi32(
            dot[m], _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, a),
                                      _mm256_set1_epi16(1)));
      }
    }
  }
};

using Int8Format = ByteFormat<Int8Layout>;
using SplitInt8Format = ByteFormat<SplitInt8Layout>;

#ifdef __AVXVNNI__
// In any format: a line holds in each byte 8 / kBits codes, four columns apart.
template <typename Format, int kRows>
inline void HalfDots(const int8_t* codes, const int32_t* offsets, int64_t g,
                     TileBytes place, __m256i* dot) {
  constexpr int kBits = Format::kBits, kFields = 8 / kBits;
  constexpr int kLines = kLinearGroup / (4 * kFields);
  const __m256i mask =
      _mm256_set1_epi8(static_cast<char>(((1 << kBits) - 1) * Format::kStep));
  place = Moved<Format>(place, 64 * kLines * (g % Format::kPlaceGroups));
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
    dot[m] = _mm256_set1_epi32(OffsetOf<Format>(offsets[m]));
  }
#pragma GCC unroll 8
  for (int j = 0; j < kLines; ++j) {
    const __m256i line = LoadLine<Format>(place, j);
#pragma GCC unroll 4
    for (int f = 0; f < kFields; ++f) {
      // One step is the lowest bit, two the second.
      const int shift = kBits * f - (Format::kStep - 1);
      const __m256i field = shift < 0 ? _mm256_slli_epi16(line, -shift)
                                      : _mm256_srli_epi16(line, shift);
      const __m256i weights = _mm256_and_si256(field, mask);
#pragma GCC unroll 4
      for (int m = 0; m < kRows; ++m) {
        dot[m] = _mm256_dpbusd_avx_epi32(
            dot[m], weights,
            Quad(codes + m * kLinearGroup + 4 * (kFields * j + f)));
      }
    }
  }
}
#else
template <typename Format, int kRows>
inline void HalfDots(const int8_t* codes, const int32_t* offsets, int64_t g,
                     TileBytes place, __m256i* dot) {
  Format::template Dot<kRows>(codes, offsets, g, place, dot);
}
#endif

// True where blocks of both halves of a tile are faster.
template <typename Format, typename Code>
constexpr bool BothHalves() {
#ifdef __AVXVNNI__
  return false;
#else
  return sizeof(Code) == 2 || Format::kBits == 4;
#endif
}

// dot[h][m] of kHalves halves.
template <typename Format, int kRows, int kHalves>
inline void GroupDots(const int8_t* codes, const int32_t* offsets, int64_t g,
                      TileBytes place, __m256i (*dot)[kRows]) {
  if constexpr (BothHalves<Format, int8_t>()) {
    Format::template Dots<kRows, kHalves>(codes, offsets, place, dot);
  } else {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      HalfDots<Format, kRows>(codes, offsets, g, Moved<Format>(place, 32 * h),
                              dot[h]);
    }
  }
}

// The same of codes of 16 bits, in any format: a line holds in each byte 8 /
// kBits codes, four columns apart. 32 bits hold the sum: 32 * 255 * 32767 <
// 2^29.
template <typename Format, int kRows, int kHalves>
inline void GroupDots(const int16_t* codes, const int32_t* offsets, int64_t g,
                      TileBytes place, __m256i (*dot)[kRows]) {
  constexpr int kBits = Format::kBits, kFields = 8 / kBits;
  constexpr int kLines = kLinearGroup / (4 * kFields);
  const __m256i mask = _mm256_set1_epi16((1 << kBits) - 1);
  place = Moved<Format>(place, 64 * kLines * (g % Format::kPlaceGroups));
#pragma GCC unroll 2
  for (int h = 0; h < kHalves; ++h) {
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) {
      dot[h][m] = _mm256_set1_epi32(OffsetOf<Format>(offsets[m]));
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < kLines; ++j) {
#pragma GCC unroll 4
    for (int f = 0; f < kFields; ++f) {
      const int column = 4 * (kFields * j + f);
      __m256i low[kHalves], high[kHalves];
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        const __m256i line = LoadLine<Format>(Moved<Format>(place, 32 * h), j);
        low[h] = _mm256_and_si256(_mm256_srli_epi16(line, kBits * f), mask);
        // Above the last field there is nothing to mask.
        high[h] = _mm256_srli_epi16(line, kBits * f + 8);
        if (f != kFields - 1) high[h] = _mm256_and_si256(high[h], mask);
      }
      AddPairs<kRows, kHalves>(low, codes, column, dot);
      AddPairs<kRows, kHalves>(high, codes, column + 2, dot);
    }
  }
}

inline const int8_t* CodesOf(const ActivationPanel& panel, const int8_t*) {
  return panel.codes;
}
inline const int16_t* CodesOf(const ActivationPanel& panel, const int16_t*) {
  return panel.wide_codes;
}

// Rows [first, first + kRows) of the panel against kHalves x 8 weight rows,
// from half `half` of the tile on.
template <typename Format, typename Code, int kRows, int kHalves>
void Rows(const ActivationPanel& panel, int first, const TileBytes& tile,
          int half, float* out, int64_t out_stride) {
  __m256 total[kHalves][kRows];
#pragma GCC unroll 2
  for (int h = 0; h < kHalves; ++h) {
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) total[h][m] = _mm256_setzero_ps();
  }
  // Or each store to a line that is not at hand would wait for it.
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
    _mm_prefetch(out + m * out_stride, _MM_HINT_T0);
  }
  const Code* codes = CodesOf(panel, static_cast<const Code*>(nullptr));
  TileBytes place = tile;
  for (int64_t g = 0; g < panel.groups; ++g) {
    const int64_t at = g * panel.rows + first;
    if (kHalves == 2 && g % Format::kPlaceGroups == 0) {
#pragma GCC unroll 9
      for (int64_t line = 0; line < Format::kPlaceBytes; line += 64) {
        _mm_prefetch(place.at + kFetchBytes + line, _MM_HINT_T0);
      }
#pragma GCC unroll 4
      for (int64_t line = 0; line < Format::kLowerBytes; line += 64) {
        _mm_prefetch(place.lower + kFetchBytes + line, _MM_HINT_T0);
      }
    }
    __m256i dot[kHalves][kRows];
    GroupDots<Format, kRows, kHalves>(codes + at * kLinearGroup,
                                      panel.offsets + at, g,
                                      Moved<Format>(place, 32 * half), dot);
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      AddGroup<kRows>(dot[h],
                      place.at + Format::kPlaceBytes - 32 + 16 * (half + h),
                      panel.scales + at, total[h]);
    }
    if ((g + 1) % Format::kPlaceGroups == 0) {
      place.at += Format::kPlaceBytes;
      place.lower += Format::kLowerBytes;
    }
  }
#pragma GCC unroll 2
  for (int h = 0; h < kHalves; ++h) {
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) {
      _mm256_storeu_ps(out + m * out_stride + 8 * h, total[h][m]);
    }
  }
}

using RowsFunction = void (*)(const ActivationPanel&, int, const TileBytes&,
                              int, float*, int64_t);

template <typename Format, typename Code>
void BothHalvesRows(const ActivationPanel& panel, const TileBytes& tile,
                    float* out, int64_t out_stride) {
  static constexpr RowsFunction kRows[kBlockRows] = {
      Rows<Format, Code, 1, 2>, Rows<Format, Code, 2, 2>,
      Rows<Format, Code, 3, 2>, Rows<Format, Code, 4, 2>};
  for (int first = 0; first < panel.rows; first += kBlockRows) {
    const int left = panel.rows - first;
    kRows[(left < kBlockRows ? left : kBlockRows) - 1](
        panel, first, tile, 0, out + first * out_stride, out_stride);
  }
}

template <typename Format, typename Code>
void PanelRows(const ActivationPanel& panel, const TileBytes& tile, float* out,
               int64_t out_stride) {
  if constexpr (BothHalves<Format, Code>()) {
    return BothHalvesRows<Format, Code>(panel, tile, out, out_stride);
  }
  static constexpr RowsFunction kSweep[kSweepRows] = {Rows<Format, Code, 1, 2>,
                                                      Rows<Format, Code, 2, 2>};
  static constexpr RowsFunction kHalf[kBlockRows] = {
      Rows<Format, Code, 1, 1>, Rows<Format, Code, 2, 1>,
      Rows<Format, Code, 3, 1>, Rows<Format, Code, 4, 1>};
  if (panel.rows <= kSweepRows) {
    return kSweep[panel.rows - 1](panel, 0, tile, 0, out, out_stride);
  }
  for (int first = 0; first < panel.rows; first += kBlockRows) {
    const int left = panel.rows - first;
    const int rows = left < kBlockRows ? left : kBlockRows;
    for (int half = 0; half < 2; ++half) {
      kHalf[rows - 1](panel, first, tile, half,
                      out + first * out_stride + 8 * half, out_stride);
    }
  }
}

template <typename Format, typename Code>
void Tile(const ActivationPanel* panels, int64_t count, const TileBytes& tile,
          float* out, int64_t out_stride) {
  for (int64_t p = 0; p < count; ++p) {
    PanelRows<Format, Code>(panels[p], tile, out, out_stride);
    out += panels[p].rows * out_stride;
  }
}

// One place is read at a time, but in slices: q, k and v then share a loop, and
// what comes next is fetched while a thread works alone.
int OneStream(int) { return 1; }

inline constexpr LinearKernels kLocalLinearKernels = {
    kPanelRows,
    /*tiles_most=*/1,
    OneStream,
    kPassBytes,
    WideOrder::k0213,
    QuantizeRow,
    QuantizeRowWide,
    Tile<Int2Format, int8_t>,
    Tile<Int4Format, int8_t>,
    Tile<Int8Format, int8_t>,
    Tile<SplitInt8Format, int8_t>,
    Tile<OddInt4Format, int8_t>,
    Tile<Int2Format, int16_t>,
    Tile<Int4Format, int16_t>,
    Tile<Int8Format, int16_t>,
    Tile<SplitInt8Format, int16_t>,
    nullptr,
    nullptr,
};

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_LINEAR_KERNELS_AVX2_INL_H_
