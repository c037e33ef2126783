// Compiled for AVX-512 F, BW, VL and VNNI: include nothing that defines inline
// functions outside the intrinsics, and keep everything else file-local.
#include <immintrin.h>

#include "kernels/cpu/dot_codes_avx512_inl.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/load_line_avx512_inl.h"
#include "kernels/cpu/quantize_avx512_inl.h"

namespace onegrid::cpu {
namespace {

void QuantizeRowWide(const float* x, int64_t groups, int row, int rows,
                     int16_t* codes, float* scales, int32_t* offsets) {
  // 0 2 1 3 of each four numbers of 16 bits.
  const __m256i order =
      _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0,
                       1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
  for (int64_t g = 0; g < groups; ++g) {
    const GroupCodes group = QuantizeGroup(x + g * kLinearGroup, 32767.0f);
    const int64_t at = g * rows + row;
    auto* to = reinterpret_cast<__m256i*>(codes + at * kLinearGroup);
    _mm256_storeu_si256(
        to, _mm256_shuffle_epi8(_mm512_cvtepi32_epi16(group.first), order));
    _mm256_storeu_si256(
        to + 1,
        _mm256_shuffle_epi8(_mm512_cvtepi32_epi16(group.second), order));
    scales[at] = group.scale;
    offsets[at] = group.Offset();
  }
}

// dot[m] += weights of 16 bits times columns i and i + 1, as they lie, of rows
// m.
template <int kRows>
inline void AddPairs(__m512i weights, const int16_t* codes, int i,
                     __m512i* dot) {
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    AddPair(weights, codes + m * kLinearGroup + i, dot[m]);
  }
}

inline __m512 HalfScales(const uint8_t* scales) {
  return _mm512_cvtph_ps(
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
}

// total += dot * weight scale * activation scale.
template <int kRows>
inline void AddGroup(const __m512i* dot, const uint8_t* weight_scales,
                     const float* scales, __m512* total) {
  const __m512 weight = HalfScales(weight_scales);
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    total[m] =
        _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot[m]), weight),
                        _mm512_set1_ps(scales[m]), total[m]);
  }
}

template <int kRows>
inline void Store(const __m512* total, float* out, int64_t out_stride) {
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    _mm512_storeu_ps(out + m * out_stride, total[m]);
  }
}

// A place from `bytes` of its lines on.
template <typename Format>
inline TileBytes Moved(TileBytes place, int64_t bytes) {
  place.at += bytes;
  if constexpr (Format::kLowerBytes != 0) place.lower += bytes;
  return place;
}

// Field f of each byte of a line times the step of its format; above and below
// it other bits.
template <typename Format>
inline __m512i FieldOf(__m512i line, int f) {
  const int shift = Format::kBits * f - (Format::kStep - 1);
  if (shift < 0) return _mm512_slli_epi16(line, -shift);
  return shift == 0 ? line : _mm512_srli_epi16(line, shift);
}

// dot[m], which begins as the offset of row m, += the dot products of group g
// of activations `codes` with 16 rows of weights in `place`.
template <typename Format, int kRows>
inline void AddGroupDots(const int8_t* codes, int64_t g, TileBytes place,
                         __m512i* dot) {
  constexpr int kBits = Format::kBits, kFields = 8 / kBits;
  constexpr int kLines = kLinearGroup / (4 * kFields);
  const __m512i mask =
      _mm512_set1_epi8(static_cast<char>(((1 << kBits) - 1) * Format::kStep));
  place = Moved<Format>(place, 64 * kLines * (g % Format::kPlaceGroups));
#pragma GCC unroll 8
  for (int j = 0; j < kLines; ++j) {
    const __m512i line = LoadLine<Format>(place, j);
#pragma GCC unroll 4
    for (int f = 0; f < kFields; ++f) {
      const __m512i weights = _mm512_and_si512(FieldOf<Format>(line, f), mask);
#pragma GCC unroll 12
      for (int m = 0; m < kRows; ++m) {
        AddQuad(weights, codes + m * kLinearGroup + 4 * (kFields * j + f),
                dot[m]);
      }
    }
  }
}

// The same of codes of 16 bits. 32 bits hold the sum: 32 * 255 * 32767 < 2^29.
template <typename Format, int kRows>
inline void AddGroupDots(const int16_t* codes, int64_t g, TileBytes place,
                         __m512i* dot) {
  constexpr int kBits = Format::kBits, kFields = 8 / kBits;
  constexpr int kLines = kLinearGroup / (4 * kFields);
  const __m512i mask = _mm512_set1_epi16((1 << kBits) - 1);
  place = Moved<Format>(place, 64 * kLines * (g % Format::kPlaceGroups));
#pragma GCC unroll 8
  for (int j = 0; j < kLines; ++j) {
    const __m512i line = LoadLine<Format>(place, j);
#pragma GCC unroll 4
    for (int f = 0; f < kFields; ++f) {
      const int column = 4 * (kFields * j + f);
      const __m512i high = _mm512_srli_epi16(line, kBits * f + 8);
      AddPairs<kRows>(
          _mm512_and_si512(_mm512_srli_epi16(line, kBits * f), mask), codes,
          column, dot);
      // Above the last field there is nothing to mask.
      AddPairs<kRows>(f == kFields - 1 ? high : _mm512_and_si512(high, mask),
                      codes, column + 2, dot);
    }
  }
}

inline const int8_t* CodesOf(const ActivationPanel& panel, const int8_t*) {
  return panel.codes;
}
inline const int16_t* CodesOf(const ActivationPanel& panel, const int16_t*) {
  return panel.wide_codes;
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

// Tiles that kRows rows of activations are multiplied with at once: memory
// gives more to several readers of bytes that follow each other than to one.
// Measured for one row on Granite Rapids, with matrices in memory and in the L3
// cache: 2, 6 and 8 are slower. Their sums are in registers.
constexpr int kMostStreams = 4;
constexpr int StreamsOf(int rows) {
  return rows <= 4 ? kMostStreams : rows <= 8 ? 2 : 1;
}

// Asks for what is read some time after `from`, where its stream goes on: for
// the L1 cache and, if kFurther, a little further on for the L2 cache, which
// keeps more lines on their way. One line of each in turn: all of one, then all
// of the other is slower than the L1 cache alone.
template <int64_t kBytes, bool kFurther>
inline void FetchAhead(const uint8_t* from) {
  constexpr int64_t kNear = 2048, kFar = 2560;
#pragma GCC unroll 9
  for (int64_t line = 0; line < kBytes; line += 64) {
    if (kFurther) _mm_prefetch(from + kFar + line, _MM_HINT_T1);
    _mm_prefetch(from + kNear + line, _MM_HINT_T0);
  }
}

// Of kRows rows with kTiles tiles.
template <typename Format, typename Code, int kRows, int kTiles>
void RowsTimesTiles(const ActivationPanel& panel, const TileBytes& tiles,
                    float* out, int64_t out_stride) {
  __m512 total[kTiles][kRows];
#pragma GCC unroll 4
  for (int t = 0; t < kTiles; ++t) {
#pragma GCC unroll 12
    for (int m = 0; m < kRows; ++m) total[t][m] = _mm512_setzero_ps();
  }
  const Code* codes = CodesOf(panel, static_cast<const Code*>(nullptr));
  TileBytes place = tiles;
  for (int64_t g = 0; g < panel.groups; ++g) {
#pragma GCC unroll 4
    for (int t = 0; t < kTiles; ++t) {
      const TileBytes at = TileAt(place, t);
      if (g % Format::kPlaceGroups == 0) {
        // More rows take longer to multiply than their weights to arrive.
        constexpr bool kFurther = kTiles == kMostStreams;
        FetchAhead<Format::kPlaceBytes, kFurther>(at.at);
        FetchAhead<Format::kLowerBytes, kFurther>(at.lower);
      }
      __m512i dot[kRows];
#pragma GCC unroll 12
      for (int m = 0; m < kRows; ++m) {
        dot[m] =
            _mm512_set1_epi32(OffsetOf<Format>(panel.offsets[g * kRows + m]));
      }
      AddGroupDots<Format, kRows>(codes, g, at, dot);
      AddGroup<kRows>(dot, at.at + Format::kPlaceBytes - 32,
                      panel.scales + g * kRows, total[t]);
    }
    codes += kRows * kLinearGroup;
    if ((g + 1) % Format::kPlaceGroups == 0) {
      place.at += Format::kPlaceBytes;
      place.lower += Format::kLowerBytes;
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTiles; ++t) {
    Store<kRows>(total[t], out + t * tiles.columns, out_stride);
  }
}

template <typename Format, typename Code, int kRows>
void Rows(const ActivationPanel& panel, const TileBytes& tiles, float* out,
          int64_t out_stride) {
  constexpr int kStreams = StreamsOf(kRows);
  int64_t t = 0;
  for (; t + kStreams <= tiles.count; t += kStreams) {
    RowsTimesTiles<Format, Code, kRows, kStreams>(
        panel, TileAt(tiles, t), out + t * tiles.columns, out_stride);
  }
  if constexpr (kStreams > 1) {
    for (; t < tiles.count; ++t) {
      RowsTimesTiles<Format, Code, kRows, 1>(
          panel, TileAt(tiles, t), out + t * tiles.columns, out_stride);
    }
  }
}

template <typename Format, typename Code>
void Tile(const ActivationPanel* panels, int64_t count, const TileBytes& tile,
          float* out, int64_t out_stride) {
  using RowsFunction =
      void (*)(const ActivationPanel&, const TileBytes&, float*, int64_t);
  static constexpr RowsFunction kByRows[kPanelRows] = {
      Rows<Format, Code, 1>,  Rows<Format, Code, 2>,  Rows<Format, Code, 3>,
      Rows<Format, Code, 4>,  Rows<Format, Code, 5>,  Rows<Format, Code, 6>,
      Rows<Format, Code, 7>,  Rows<Format, Code, 8>,  Rows<Format, Code, 9>,
      Rows<Format, Code, 10>, Rows<Format, Code, 11>, Rows<Format, Code, 12>};
  for (int64_t p = 0; p < count; ++p) {
    kByRows[panels[p].rows - 1](panels[p], tile, out, out_stride);
    out += panels[p].rows * out_stride;
  }
}

}  // namespace

const LinearKernels kLinearKernelsAvx512 = {
    kPanelRows,
    /*tiles_most=*/kMostStreams,
    StreamsOf,
    kPassBytes,
    WideOrder::k0213,
    QuantizeRow,
    QuantizeRowWide,
    Tile<Int2Layout, int8_t>,
    Tile<Int4Layout, int8_t>,
    Tile<Int8Layout, int8_t>,
    Tile<SplitInt8Layout, int8_t>,
    Tile<OddInt4Layout, int8_t>,
    Tile<Int2Layout, int16_t>,
    Tile<Int4Layout, int16_t>,
    Tile<Int8Layout, int16_t>,
    Tile<SplitInt8Layout, int16_t>,
    nullptr,
    nullptr,
};

}  // namespace onegrid::cpu
