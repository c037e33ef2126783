#ifndef KERNELS_CPU_LINEAR_KERNELS_AVX512_INL_H_
#define KERNELS_CPU_LINEAR_KERNELS_AVX512_INL_H_

// The inner loops of the linear layers with AVX-512 VNNI, in two orders of the
// same products, sums and bits. Everything is local to the including file.

#include <immintrin.h>

#include <cstdint>

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

// total += dot * weight scales * activation scale.
inline void AddScaled(__m512i dot, __m512 weight, float scale, __m512& total) {
  total = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot), weight),
                          _mm512_set1_ps(scale), total);
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

// A group's weights, 16 rows of them, are met in steps by four bytes of a row's
// codes each, one after the other: by four codes of 8 bits or two of 16.
template <typename Code>
inline constexpr int kStepsOf = kLinearGroup * int{sizeof(Code)} / 4;

// Those of row m.
template <typename Code>
inline const Code* CodesOfStep(const Code* codes, int m, int step) {
  return codes + m * kLinearGroup + step * (kLinearGroup / kStepsOf<Code>);
}

inline void AddStep(__m512i weights, const int8_t* codes, __m512i& dot) {
  AddQuad(weights, codes, dot);
}
inline void AddStep(__m512i weights, const int16_t* codes, __m512i& dot) {
  AddPair(weights, codes, dot);
}

// The same of codes that are spread over all lanes; the last but one argument
// says of which.
inline void AddStep(__m512i weights, __m512i spread, const int8_t*,
                    __m512i& dot) {
  dot = _mm512_dpbusd_epi32(dot, weights, spread);
}
inline void AddStep(__m512i weights, __m512i spread, const int16_t*,
                    __m512i& dot) {
  dot = _mm512_dpwssd_epi32(dot, weights, spread);
}

// A line of weights, loaded once: left to the compiler it is read by each
// instruction that takes a field of it.
template <typename Format>
inline __m512i HeldLine(TileBytes place, int j) {
  __m512i line = LoadLine<Format>(place, j);
  if constexpr (Format::kBits < 8) __asm__("" : "+v"(line));
  return line;
}
template <typename Format>
inline constexpr int kLinesOf = kLinearGroup * Format::kBits / 32;
template <typename Format, typename Code>
inline constexpr int kStepsOfLine = kStepsOf<Code> / kLinesOf<Format>;

// The weights of a step of a line: of codes of 8 bits in bytes, a field.
template <typename Format>
inline __m512i WeightsOf(__m512i line, int step, const int8_t*) {
  const __m512i mask = _mm512_set1_epi8(
      static_cast<char>(((1 << Format::kBits) - 1) * Format::kStep));
  return _mm512_and_si512(FieldOf<Format>(line, step), mask);
}

// The same of 16 bits: two steps for each field, of its even bytes and its odd
// ones. 32 bits hold the sums: 32 * 255 * 32767 < 2^29.
template <typename Format>
inline __m512i WeightsOf(__m512i line, int step, const int16_t*) {
  const __m512i mask = _mm512_set1_epi16((1 << Format::kBits) - 1);
  const int shift = Format::kBits * (step / 2) + 8 * (step % 2);
  const __m512i field = _mm512_srli_epi16(line, shift);
  // Above the last field there is nothing to mask.
  if (shift + Format::kBits == 16) return field;
  return _mm512_and_si512(field, mask);
}

// dot[m], which begins as the offset of row m, += the dot products of a group
// of activations `codes` with its weights.
template <typename Format, typename Code, int kRows>
inline void AddGroupDots(const Code* codes, TileBytes place, __m512i* dot) {
  constexpr int kSteps = kStepsOfLine<Format, Code>;
#pragma GCC unroll 8
  for (int j = 0; j < kLinesOf<Format>; ++j) {
    const __m512i line = HeldLine<Format>(place, j);
#pragma GCC unroll 8
    for (int step = 0; step < kSteps; ++step) {
      const __m512i weights = WeightsOf<Format>(line, step, codes);
#pragma GCC unroll 12
      for (int m = 0; m < kRows; ++m) {
        AddStep(weights, CodesOfStep(codes, m, j * kSteps + step), dot[m]);
      }
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

// The same for group g of a tile, of both planes, where its place begins.
template <typename Format, bool kFurther>
inline void FetchGroup(TileBytes place, int64_t g) {
  if (g % Format::kPlaceGroups != 0) return;
  FetchAhead<Format::kPlaceBytes, kFurther>(place.at);
  FetchAhead<Format::kLowerBytes, kFurther>(place.lower);
}

// Of a place that has group g: its lines, its scales, and that of group g + 1.
template <typename Format>
inline TileBytes LinesOf(TileBytes place, int64_t g) {
  return Moved<Format>(place,
                       64 * kLinesOf<Format> * (g % Format::kPlaceGroups));
}
template <typename Format>
inline __m512 ScalesOf(TileBytes place) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(
      reinterpret_cast<const __m256i*>(place.at + Format::kPlaceBytes - 32)));
}
template <typename Format>
inline TileBytes PlaceAfter(TileBytes place, int64_t g) {
  if ((g + 1) % Format::kPlaceGroups != 0) return place;
  place.at += Format::kPlaceBytes;
  place.lower += Format::kLowerBytes;
  return place;
}

// Of all rows of a panel, kRows, with kTiles tiles, of each group one after the
// other.
template <typename Format, typename Code, int kRows, int kTiles, bool kFurther>
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
      FetchGroup<Format, kFurther>(at, g);
      __m512i dot[kRows];
#pragma GCC unroll 12
      for (int m = 0; m < kRows; ++m) {
        dot[m] =
            _mm512_set1_epi32(OffsetOf<Format>(panel.offsets[g * kRows + m]));
      }
      AddGroupDots<Format, Code, kRows>(codes, LinesOf<Format>(at, g), dot);
      const __m512 weight = ScalesOf<Format>(at);
#pragma GCC unroll 12
      for (int m = 0; m < kRows; ++m) {
        AddScaled(dot[m], weight, panel.scales[g * kRows + m], total[t][m]);
      }
    }
    codes += kRows * kLinearGroup;
    place = PlaceAfter<Format>(place, g);
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTiles; ++t) {
    Store<kRows>(total[t], out + t * tiles.columns, out_stride);
  }
}

// What is read after some groups have been multiplied: for each of them some
// lines that follow each other.
struct LaterLines {
  const uint8_t* at;
  int of_group;

  void Fetch(int64_t g) const {
    for (int i = 0; i < of_group; ++i) {
      _mm_prefetch(at + 64 * (g * of_group + i), _MM_HINT_T1);
    }
  }
};

// Of kRows rows of a panel, from kFirst on, with two tiles at once: what is
// loaded of the rows, codes, scales and offsets, meets both.
template <typename Format, typename Code, int kFirst, int kRows>
void RowsTimesPair(const ActivationPanel& panel, const TileBytes& tiles,
                   const LaterLines& later, float* out, int64_t out_stride) {
  __m512 first[kRows], second[kRows];
#pragma GCC unroll 6
  for (int m = 0; m < kRows; ++m) first[m] = second[m] = _mm512_setzero_ps();
  const Code* codes =
      CodesOf(panel, static_cast<const Code*>(nullptr)) + kFirst * kLinearGroup;
  const float* scales = panel.scales + kFirst;
  const int32_t* offsets = panel.offsets + kFirst;
  TileBytes place = tiles;
  for (int64_t g = 0; g < panel.groups; ++g) {
    const TileBytes other = TileAt(place, 1);
    // Rows that come later find them in the cache.
    if (kFirst == 0) {
      FetchGroup<Format, false>(place, g);
      FetchGroup<Format, false>(other, g);
    }
    later.Fetch(g);
    __m512i dot_first[kRows], dot_second[kRows];
#pragma GCC unroll 6
    for (int m = 0; m < kRows; ++m) {
      dot_first[m] = dot_second[m] =
          _mm512_set1_epi32(OffsetOf<Format>(offsets[m]));
    }
    const TileBytes lines = LinesOf<Format>(place, g);
    const TileBytes other_lines = LinesOf<Format>(other, g);
    constexpr int kSteps = kStepsOfLine<Format, Code>;
#pragma GCC unroll 8
    for (int j = 0; j < kLinesOf<Format>; ++j) {
      const __m512i line = HeldLine<Format>(lines, j);
      const __m512i other_line = HeldLine<Format>(other_lines, j);
#pragma GCC unroll 8
      for (int step = 0; step < kSteps; ++step) {
        const __m512i in_first = WeightsOf<Format>(line, step, codes);
        const __m512i in_second = WeightsOf<Format>(other_line, step, codes);
#pragma GCC unroll 6
        for (int m = 0; m < kRows; ++m) {
          const __m512i spread =
              Spread(CodesOfStep(codes, m, j * kSteps + step));
          AddStep(in_first, spread, codes, dot_first[m]);
          AddStep(in_second, spread, codes, dot_second[m]);
        }
      }
    }
    const __m512 weight = ScalesOf<Format>(place);
    const __m512 other_weight = ScalesOf<Format>(other);
#pragma GCC unroll 6
    for (int m = 0; m < kRows; ++m) {
      AddScaled(dot_first[m], weight, scales[m], first[m]);
      AddScaled(dot_second[m], other_weight, scales[m], second[m]);
    }
    codes += panel.rows * kLinearGroup;
    scales += panel.rows;
    offsets += panel.rows;
    place = PlaceAfter<Format>(place, g);
  }
  out += kFirst * out_stride;
  Store<kRows>(first, out, out_stride);
  Store<kRows>(second, out + tiles.columns, out_stride);
}

// Which of some panels that are multiplied with the same tiles in turn.
struct Turn {
  int64_t panel, count;
};

// An order has
//   static void Multiply<Format, Code, kRows>(panel, tiles, turn, out,
//                                             out_stride):
//       products of a panel of kRows rows with some tiles.
template <typename Order, typename Format, typename Code>
void Tile(const ActivationPanel* panels, int64_t count, const TileBytes& tile,
          float* out, int64_t out_stride) {
  using RowsFunction =
      void (*)(const ActivationPanel&, const TileBytes&, Turn, float*, int64_t);
  static constexpr RowsFunction kByRows[kPanelRows] = {
      Order::template Multiply<Format, Code, 1>,
      Order::template Multiply<Format, Code, 2>,
      Order::template Multiply<Format, Code, 3>,
      Order::template Multiply<Format, Code, 4>,
      Order::template Multiply<Format, Code, 5>,
      Order::template Multiply<Format, Code, 6>,
      Order::template Multiply<Format, Code, 7>,
      Order::template Multiply<Format, Code, 8>,
      Order::template Multiply<Format, Code, 9>,
      Order::template Multiply<Format, Code, 10>,
      Order::template Multiply<Format, Code, 11>,
      Order::template Multiply<Format, Code, 12>};
  for (int64_t p = 0; p < count; ++p) {
    kByRows[panels[p].rows - 1](panels[p], tile, {p, count}, out, out_stride);
    out += panels[p].rows * out_stride;
  }
}

// The kernels that take products in an order.
template <typename Order>
constexpr LinearKernels KernelsOf(int (*streams)(int rows)) {
  return {
      kPanelRows,
      Order::kTilesMost,
      streams,
      kPassBytes,
      WideOrder::k0213,
      QuantizeRow,
      QuantizeRowWide,
      Tile<Order, Int2Layout, int8_t>,
      Tile<Order, Int4Layout, int8_t>,
      Tile<Order, Int8Layout, int8_t>,
      Tile<Order, SplitInt8Layout, int8_t>,
      Tile<Order, OddInt4Layout, int8_t>,
      Tile<Order, Int2Layout, int16_t>,
      Tile<Order, Int4Layout, int16_t>,
      Tile<Order, Int8Layout, int16_t>,
      Tile<Order, SplitInt8Layout, int16_t>,
      nullptr,
      nullptr,
  };
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_LINEAR_KERNELS_AVX512_INL_H_
