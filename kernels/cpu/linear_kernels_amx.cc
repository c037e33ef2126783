// Compiled for AVX-512, run on AMX: include nothing that defines inline
// functions outside the intrinsics, and keep everything else file-local.
#include <immintrin.h>

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/load_line_avx512_inl.h"
#include "kernels/cpu/quantize_avx512_inl.h"

namespace onegrid::cpu {
namespace {

// Most rows of one panel: those of a tile register. Rows are spread evenly over
// panels, so that where there are several none has fewer than half as many.
constexpr int kRowsMost = 16;
static_assert(kRowsMost <= kMaxPanelRows);
// Of a panel: all rows, or about half of those of two.
constexpr int LeastRows(int64_t rows) {
  return static_cast<int>(rows < kRowsMost / 2 ? rows : kRowsMost / 2);
}
// Weights decoded at a time: so many groups of a tile, 18 KB, all that Gemma 3
// 1B has, which stay in the L1 cache, and of so many tiles, in the L2 cache.
// All that a panel makes with them is written in a row, 512 bytes to each of
// its rows, which hardware fetches ahead; one tile for all panels first would
// wait for a line of each row.
constexpr int64_t kBlockGroups = 36;
constexpr int kTilesMost = 8;
// More than the L2 cache keeps (2 MB), since a pass takes kBlockGroups groups
// of all panels at a time: then weights are decoded for 16 panels and not for 8
// where k is 6,912, in prompts of 512 tokens on two threads. 1 MB made these
// take 1.016 (Gemma 3 270M) to 1.04 times as long (shape of 1B).
constexpr int64_t kAmxPassBytes = 4 << 20;
// Bytes of one decoded group: line j holds for each of 16 weight rows the
// signed codes of k = 4j .. 4j + 3.
constexpr int64_t kGroupBytes = 8 * 64;
// Bytes of one row's codes in a group, or of its low or high bytes.
constexpr int64_t kRowBytes = 32;

// Low and high bytes of up to kStackedRows rows are the rows of one tile, so
// both have signs: what low bytes are less by there.
static_assert(2 * kStackedRows <= kRowsMost);
constexpr int kLowBias = 128;

// Tile registers: 0 .. 3 sums, 4 and 5 activations, 6 and 7 weights.
void Configure() {
  TileConfig config;
  for (int i = 0; i < 4; ++i) config.Set(i, kRowsMost, 64);
  for (int i = 4; i < 6; ++i) config.Set(i, kRowsMost, 32);
  for (int i = 6; i < 8; ++i) config.Set(i, 8, 64);
  config.Load();
}

void QuantizeRowWide(const float* x, int64_t groups, int row, int rows,
                     int16_t* codes, float* scales, int32_t* offsets) {
  const __m128i bias =
      _mm_set1_epi8(static_cast<char>(rows <= kStackedRows ? kLowBias : 0));
  const int64_t plane = rows * kRowBytes;
  auto* to = reinterpret_cast<int8_t*>(codes) + row * kRowBytes;
  for (int64_t g = 0; g < groups; ++g) {
    const auto [first, second, scale] =
        QuantizeGroup(x + g * kLinearGroup, 32767.0f);
    auto* low = reinterpret_cast<__m128i*>(to + 2 * g * plane);
    auto* high = reinterpret_cast<__m128i*>(to + (2 * g + 1) * plane);
    _mm_storeu_si128(low, _mm_xor_si128(_mm512_cvtepi32_epi8(first), bias));
    _mm_storeu_si128(low + 1,
                     _mm_xor_si128(_mm512_cvtepi32_epi8(second), bias));
    _mm_storeu_si128(high, _mm512_cvtepi32_epi8(_mm512_srai_epi32(first, 8)));
    _mm_storeu_si128(high + 1,
                     _mm512_cvtepi32_epi8(_mm512_srai_epi32(second, 8)));
    scales[g * rows + row] = scale;
    offsets[g * rows + row] = 0;  // Weights are signed here.
  }
}

// Some groups of a tile: signed codes, as kGroupBytes says, scales in floats,
// and what kLowBias takes from the sum of low bytes.
template <int64_t kGroups>
struct DecodedGroups {
  alignas(64) int8_t codes[kGroups * kGroupBytes];
  alignas(64) float scales[kGroups * kTileRows];
  alignas(64) int32_t low_sums[kGroups * kTileRows];
};

// Decodes group g of a tile as group i of `to`; `low_sums` only if kLowSums.
// Fetches what lies some groups ahead if kFetches. Inline, or what the caller
// has in vector registers would be stored and loaded around it.
template <typename Format, bool kLowSums, bool kFetches, int64_t kGroups>
[[gnu::always_inline]] inline void Decode(TileBytes tile, int64_t g, int64_t i,
                                          DecodedGroups<kGroups>* to) {
  constexpr int kBits = Format::kBits, kFields = 8 / kBits;
  constexpr int kLines = kLinearGroup / (4 * kFields);
  const __m512i mask = _mm512_set1_epi8(static_cast<char>((1 << kBits) - 1));
  const __m512i bias = _mm512_set1_epi8(static_cast<char>(Format::kBias));
  const __m512i low_bias = _mm512_set1_epi8(static_cast<char>(kLowBias));
  const int64_t place_index = g / Format::kPlaceGroups;
  const uint8_t* place = tile.at + place_index * Format::kPlaceBytes;
  const uint8_t* lower = tile.lower + place_index * Format::kLowerBytes;
  if (kFetches && g % Format::kPlaceGroups == 0) {
#pragma GCC unroll 9
    for (int64_t line = 0; line < Format::kPlaceBytes; line += 64) {
      _mm_prefetch(place + kFetchL2Bytes + line, _MM_HINT_T1);
      _mm_prefetch(place + kFetchL1Bytes + line, _MM_HINT_T0);
    }
#pragma GCC unroll 4
    for (int64_t line = 0; line < Format::kLowerBytes; line += 64) {
      _mm_prefetch(lower + kFetchL2Bytes + line, _MM_HINT_T1);
      _mm_prefetch(lower + kFetchL1Bytes + line, _MM_HINT_T0);
    }
  }
  const uint8_t* lines = place + 64 * kLines * (g % Format::kPlaceGroups);
  int8_t* codes = to->codes + i * kGroupBytes;
  __m512i sums = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int j = 0; j < kLines; ++j) {
    const __m512i line = LoadLine<Format>({lines, lower}, j);
#pragma GCC unroll 4
    for (int f = 0; f < kFields; ++f) {
      const __m512i field = f == 0 ? line : _mm512_srli_epi16(line, kBits * f);
      __m512i code = _mm512_and_si512(field, mask);
      if (Format::kStep == 2) code = _mm512_add_epi8(code, code);
      code = _mm512_sub_epi8(code, bias);
      _mm512_store_si512(codes + 64 * (kFields * j + f), code);
      if (kLowSums) sums = _mm512_dpbusd_epi32(sums, low_bias, code);
    }
  }
  const auto* scales = reinterpret_cast<const __m256i*>(
      place + Format::kPlaceBytes - 2 * kTileRows);
  _mm512_store_ps(to->scales + i * kTileRows,
                  _mm512_cvtph_ps(_mm256_loadu_si256(scales)));
  if (kLowSums) _mm512_store_si512(to->low_sums + i * kTileRows, sums);
}

// A tile's groups [first, first + count), decoded once for many panels.
class WeightBlock {
 public:
  template <typename Format, bool kLowSums>
  void Fill(TileBytes tile, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      Decode<Format, kLowSums, false>(tile, first + i, i, &groups_);
    }
  }

  void Prepare(int64_t) {}
  const int8_t* Codes(int64_t i) const {
    return groups_.codes + i * kGroupBytes;
  }
  const float* Scales(int64_t i) const {
    return groups_.scales + i * kTileRows;
  }
  const int32_t* LowSums(int64_t i) const {
    return groups_.low_sums + i * kTileRows;
  }

 private:
  DecodedGroups<kBlockGroups> groups_;
};

// A tile's groups, decoded for one panel shortly before they are multiplied, so
// that its memory arrives meanwhile.
template <typename Format, bool kLowSums>
class WeightStream {
 public:
  WeightStream(TileBytes tile, int64_t count) : tile_(tile), count_(count) {
    for (int64_t i = -kAhead; i < 0; ++i) Prepare(i);
  }

  // To be called with 0, 1, 2 ... before group i is read; group i - 5 is lost.
  [[gnu::always_inline]] void Prepare(int64_t i) {
    const int64_t g = i + kAhead;
    if (g < count_)
      Decode<Format, kLowSums, true>(tile_, g, g % kRing, &groups_);
  }
  const int8_t* Codes(int64_t i) const {
    return groups_.codes + i % kRing * kGroupBytes;
  }
  const float* Scales(int64_t i) const {
    return groups_.scales + i % kRing * kTileRows;
  }
  const int32_t* LowSums(int64_t i) const {
    return groups_.low_sums + i % kRing * kTileRows;
  }

 private:
  static constexpr int64_t kRing = 8;
  static constexpr int64_t kAhead = 3;

  TileBytes tile_;
  int64_t count_;
  DecodedGroups<kRing> groups_;
};

// An integer below 2^22, added to the bits of this float, is added to its
// value: one unit in its last place counts 1.
constexpr int32_t kUnitBits = 0x4b400000;
constexpr float kUnit = 0x1.8p23f;

// The dot products of one group of a panel with a tile's 16 rows, as they are
// stored from tile registers, and what multiplies them by the weights' scales,
// with the bits of float(dot) * scale. While tiles are at work, a processor
// with AMX multiplies and converts floats at half its rate, one vector of 16 a
// cycle (Granite Rapids), but adds integers at the full one: so a conversion is
// an addition here.
template <typename Code, int kRows>
struct Dots {
  alignas(64) int32_t sums[kRowsMost * kTileRows];

  // kUnit * scale has 13 bits, so the products lose nothing but in one
  // rounding.
  struct Scale {
    Scale(const float* scales, const int32_t*)
        : scale(_mm512_load_ps(scales)),
          unit(_mm512_mul_ps(scale, _mm512_set1_ps(kUnit))) {}
    __m512 scale, unit;
  };
  __m512 Scaled(int m, const Scale& by) const {
    const __m512i row = _mm512_load_si512(sums + m * kTileRows);
    const __m512i bits = _mm512_add_epi32(row, _mm512_set1_epi32(kUnitBits));
    return _mm512_fmsub_ps(_mm512_castsi512_ps(bits), by.scale, by.unit);
  }
};

// High bytes count 256 times. 32 bits hold the sum: 32 * 128 * 32767 < 2^28.
template <int kRows>
struct Dots<int16_t, kRows> {
  static constexpr bool kStacked = kRows <= kStackedRows;
  static constexpr int kHighAt = (kStacked ? kRows : kRowsMost) * kTileRows;
  alignas(64) int32_t sums[(kStacked ? 1 : 2) * kRowsMost * kTileRows];

  struct Scale {
    Scale(const float* scales, const int32_t* low_sums)
        : scale(_mm512_load_ps(scales)),
          low(kStacked ? _mm512_load_si512(low_sums) : __m512i()) {}
    __m512 scale;
    __m512i low;
  };
  __m512 Scaled(int m, const Scale& by) const {
    const int32_t* row = sums + m * kTileRows;
    __m512i low = _mm512_load_si512(row);
    if (kStacked) low = _mm512_add_epi32(low, by.low);
    const __m512i high = _mm512_slli_epi32(_mm512_load_si512(row + kHighAt), 8);
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(low, high)),
                         by.scale);
  }
};

// Makes those in tile registers that belong to kSlot (0 or 1) and then stores
// them. Two slots in turn hide the latency of one behind the work on the other.
template <typename Code, int kRows, int kSlot>
struct Slot {
  static constexpr bool kApart =
      sizeof(Code) == 2 && kRows > kStackedRows;  // Low and high bytes.

  static void Multiply(const int8_t* codes, const int8_t* weights) {
    constexpr int kWeights = 6 + kSlot;
    if constexpr (kApart) {
      constexpr int kLow = 2 * kSlot, kHigh = 2 * kSlot + 1;
      TileZero<kLow>();
      TileZero<kHigh>();
      TileLoad<4>(codes, kRowBytes);
      TileLoad<5>(codes + kRows * kRowBytes, kRowBytes);
      TileLoad<kWeights>(weights, 64);
      TileDotUnsignedSigned<kLow, 4, kWeights>();
      TileDotSigned<kHigh, 5, kWeights>();
    } else {
      TileZero<kSlot>();
      TileLoad<4 + kSlot>(codes, kRowBytes);
      TileLoad<kWeights>(weights, 64);
      TileDotSigned<kSlot, 4 + kSlot, kWeights>();
    }
  }
  static void Store(Dots<Code, kRows>* to) {
    if constexpr (kApart) {
      TileStore<2 * kSlot>(to->sums, 64);
      TileStore<2 * kSlot + 1>(to->sums + to->kHighAt, 64);
    } else {
      TileStore<kSlot>(to->sums, 64);
    }
  }
};

inline const int8_t* CodesOf(const ActivationPanel& panel, const int8_t*) {
  return panel.codes;
}
inline const int8_t* CodesOf(const ActivationPanel& panel, const int16_t*) {
  return reinterpret_cast<const int8_t*>(panel.wide_codes);
}

// total[m] += dots * weight scale * activation scale, of group i of `weights`.
template <typename Code, int kRows, typename Weights>
[[gnu::always_inline]] inline void AddGroup(const Dots<Code, kRows>& dots,
                                            const Weights& weights, int64_t i,
                                            const float* scales,
                                            __m512* total) {
  const typename Dots<Code, kRows>::Scale weight(weights.Scales(i),
                                                 weights.LowSums(i));
  scales += i * kRows;
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) {
    total[m] = _mm512_fmadd_ps(dots.Scaled(m, weight),
                               _mm512_set1_ps(scales[m]), total[m]);
  }
}

// out (+)= groups [first, first + count) of a panel times `weights`, which
// begin with group `first`.
template <typename Code, int kRows, typename Weights>
void MultiplyRows(const ActivationPanel& panel, Weights& weights, int64_t first,
                  int64_t count, float* out, int64_t out_stride) {
  using Even = Slot<Code, kRows, 0>;
  using Odd = Slot<Code, kRows, 1>;
  Dots<Code, kRows> even, odd;
  constexpr int64_t kPanelGroup =
      kRows * kRowBytes * static_cast<int64_t>(sizeof(Code));
  const int8_t* codes =
      CodesOf(panel, static_cast<const Code*>(nullptr)) + first * kPanelGroup;
  const float* scales = panel.scales + first * kRows;
  __m512 total[kRows];
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) {
    total[m] = first == 0 ? _mm512_setzero_ps()
                          : _mm512_loadu_ps(out + m * out_stride);
  }
  // Sums are read a group after they are stored, when they have arrived.
  weights.Prepare(0);
  weights.Prepare(1);
  Even::Multiply(codes, weights.Codes(0));
  if (count > 1) Odd::Multiply(codes + kPanelGroup, weights.Codes(1));
  for (int64_t g = 0; g < count; g += 2) {
    weights.Prepare(g + 2);
    weights.Prepare(g + 3);
    Even::Store(&even);
    if (g + 2 < count) {
      Even::Multiply(codes + (g + 2) * kPanelGroup, weights.Codes(g + 2));
    }
    if (g > 0) AddGroup(odd, weights, g - 1, scales, total);
    if (g + 1 < count) Odd::Store(&odd);
    if (g + 3 < count) {
      Odd::Multiply(codes + (g + 3) * kPanelGroup, weights.Codes(g + 3));
    }
    AddGroup(even, weights, g, scales, total);
  }
  if (count % 2 == 0) AddGroup(odd, weights, count - 1, scales, total);
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) {
    _mm512_storeu_ps(out + m * out_stride, total[m]);
  }
}

// The same for the number of rows that the panel has.
template <typename Code, typename Weights, int kRows = kRowsMost>
void MultiplyPanel(const ActivationPanel& panel, Weights& weights,
                   int64_t first, int64_t count, float* out,
                   int64_t out_stride) {
  constexpr int kRowsLeast =
      LeastRows(sizeof(Code) == 1 ? kAmxRows : kAmxWideRows);
  if constexpr (kRows > kRowsLeast) {
    if (panel.rows < kRows) {
      return MultiplyPanel<Code, Weights, kRows - 1>(panel, weights, first,
                                                     count, out, out_stride);
    }
  }
  MultiplyRows<Code, kRows>(panel, weights, first, count, out, out_stride);
}

// Without it stores wait for lines that another core or the L3 cache has, and
// tiles that are stored behind them wait too.
inline void FetchToWrite(const float* out, int rows, int64_t out_stride) {
  for (int m = 0; m < rows; ++m) {
    __asm__ volatile("prefetchw %0" : : "m"(out[m * out_stride]));
  }
}

// The groups that are decoded next: of the same tiles, or of those that follow.
// Decoding takes less time than their memory does to arrive, so they are
// fetched while panels are multiplied, some lines at a time.
template <typename Format>
class NextBlock {
 public:
  NextBlock(TileBytes tiles, int64_t first, int64_t groups)
      : tiles_(tiles), tile_(first < groups ? 0 : tiles.count) {
    constexpr int64_t kPlace = Format::kPlaceGroups;
    if (first >= groups) first = 0;
    const int64_t left = groups - first;
    const int64_t taken = left < kBlockGroups ? left : kBlockGroups;
    const int64_t places = (taken + kPlace - 1) / kPlace;
    at_ = first / kPlace * Format::kPlaceBytes;
    lower_at_ = first / kPlace * Format::kLowerBytes;
    lines_ = places * Format::kPlaceBytes / 64;
    lower_lines_ = places * Format::kLowerBytes / 64;
  }

  // Part `part` of `parts` of those of tile t.
  void Fetch(int64_t t, int64_t part, int64_t parts) const {
    const TileBytes tile = TileAt(tiles_, tile_ + t);
    Lines(tile.at + at_, lines_, part, parts);
    if (Format::kLowerBytes > 0) {
      Lines(tile.lower + lower_at_, lower_lines_, part, parts);
    }
  }

 private:
  static void Lines(const uint8_t* from, int64_t lines, int64_t part,
                    int64_t parts) {
    const int64_t end = lines * (part + 1) / parts;
    for (int64_t line = lines * part / parts; line < end; ++line) {
      _mm_prefetch(from + 64 * line, _MM_HINT_T1);
    }
  }

  TileBytes tiles_;
  int64_t tile_;
  int64_t at_, lower_at_, lines_, lower_lines_;
};

// Products of one panel.
template <typename Format, typename Code>
void StreamTiles(const ActivationPanel& panel, const TileBytes& tiles,
                 float* out, int64_t out_stride) {
  for (int64_t t = 0; t < tiles.count; ++t) {
    WeightStream<Format, sizeof(Code) == 2> stream(TileAt(tiles, t),
                                                   panel.groups);
    MultiplyPanel<Code>(panel, stream, 0, panel.groups, out + t * tiles.columns,
                        out_stride);
  }
}

template <typename Format, typename Code>
void Tile(const ActivationPanel* panels, int64_t count, const TileBytes& tiles,
          float* out, int64_t out_stride) {
  if (count == 1) {
    return StreamTiles<Format, Code>(panels[0], tiles, out, out_stride);
  }
  const int64_t groups = panels[0].groups;
  WeightBlock blocks[kTilesMost];
  for (int64_t first = 0; first < groups; first += kBlockGroups) {
    const int64_t left = groups - first;
    const int64_t taken = left < kBlockGroups ? left : kBlockGroups;
    for (int64_t t = 0; t < tiles.count; ++t) {
      blocks[t].Fill<Format, sizeof(Code) == 2>(TileAt(tiles, t), first, taken);
    }
    const NextBlock<Format> next(tiles, first + taken, groups);
    float* to = out;
    for (int64_t p = 0; p < count; ++p) {
      for (int64_t t = 0; t < tiles.count; ++t) {
        next.Fetch(t, p, count);
        FetchToWrite(to + t * tiles.columns, panels[p].rows, out_stride);
        MultiplyPanel<Code>(panels[p], blocks[t], first, taken,
                            to + t * tiles.columns, out_stride);
      }
      to += panels[p].rows * out_stride;
    }
  }
}

}  // namespace

const LinearKernels kLinearKernelsAmx = {
    kRowsMost,
    kTilesMost,
    /*streams=*/nullptr,
    kAmxPassBytes,
    WideOrder::kBytePlanes,
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
    Configure,
    TileRelease,
};

}  // namespace onegrid::cpu
