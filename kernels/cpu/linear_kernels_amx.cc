// Compiled for AVX-512, run on AMX: include nothing that defines inline
// functions outside the intrinsics, and keep everything else file-local.
#include <immintrin.h>

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/amx_weights_inl.h"
#include "kernels/cpu/linear_kernels.h"
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
// Tiles at a time, whose activations stay in the L2 cache meanwhile.
constexpr int kTilesMost = 8;
// More than the L2 cache keeps (2 MB), since a pass takes kBlockGroups groups
// of all panels at a time: then weights are decoded for 16 panels and not for 8
// where k is 6,912, in prompts of 512 tokens on two threads. 1 MB made these
// take 1.016 (Gemma 3 270M) to 1.04 times as long (shape of 1B).
constexpr int64_t kAmxPassBytes = 4 << 20;
// Bytes of one row's codes in a group, or of its low or high bytes.
constexpr int64_t kRowBytes = 32;
// Low and high bytes of few rows are the rows of one tile.
static_assert(2 * kStackedRows <= kRowsMost);

// Tile registers: 0 .. 3 sums, 4 and 5 activations, 6 and 7 weights. A product
// takes a cycle for each row of them, so there are no more than needed: of the
// largest panel, and of low and high bytes that are the rows of one tile, which
// those of a smaller panel may be.
void Configure(const ActivationPanel& largest) {
  int rows = largest.rows;
  if (largest.codes == nullptr) {
    rows = rows <= kStackedRows ? 2 * rows : kRowsMost;
  }
  TileConfig config;
  for (int i = 0; i < 4; ++i) config.Set(i, rows, 64);
  for (int i = 4; i < 6; ++i) config.Set(i, rows, kRowBytes);
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

// 256 times numbers of 24 bits. A byte shuffle leaves port 0 to the floats,
// unlike a shift: 80 cycles a group become 76.
inline __m512i Times256(__m512i x) {
  return _mm512_shuffle_epi8(
      x, _mm512_set4_epi32(0x0e0d0cff, 0x0a0908ff, 0x060504ff, 0x020100ff));
}

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
    const __m512i high = Times256(_mm512_load_si512(row + kHighAt));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(low, high)),
                         by.scale);
  }
};

// What to multiply for a group: its codes, or nullptr, and its weights.
struct GroupOperands {
  const int8_t* codes;
  const int8_t* weights;
};

// Makes those in tile registers that belong to kSlot (0 or 1) and then stores
// them. Two slots in turn hide the latency of one behind the work on the other.
// Low and high bytes that are apart are two products, of which the second has
// the weights that the first loads. Else there is one, the first.
template <typename Code, int kRows, int kSlot>
struct Slot {
  static constexpr bool kApart = sizeof(Code) == 2 && kRows > kStackedRows;
  static constexpr int kLow = kApart ? 2 * kSlot : kSlot, kHigh = kLow + 1;
  static constexpr int kCodes = kApart ? 4 : 4 + kSlot;
  static constexpr int kWeights = 6 + kSlot;

  static void MultiplyLow(const int8_t* codes, const int8_t* weights) {
    TileZero<kLow>();
    TileLoad<kCodes>(codes, kRowBytes);
    TileLoad<kWeights>(weights, 64);
    if constexpr (kApart) {
      TileDotUnsignedSigned<kLow, kCodes, kWeights>();
    } else {
      TileDotSigned<kLow, kCodes, kWeights>();
    }
  }
  static void MultiplyHigh(const int8_t* codes) {
    if constexpr (kApart) {
      TileZero<kHigh>();
      TileLoad<5>(codes + kRows * kRowBytes, kRowBytes);
      TileDotSigned<kHigh, 5, kWeights>();
    }
  }
  static void Multiply(const GroupOperands& group) {
    if (group.codes == nullptr) return;
    MultiplyLow(group.codes, group.weights);
    MultiplyHigh(group.codes);
  }
  static void StoreLow(Dots<Code, kRows>* to) { TileStore<kLow>(to->sums, 64); }
  static void StoreHigh(Dots<Code, kRows>* to) {
    if constexpr (kApart) TileStore<kHigh>(to->sums + to->kHighAt, 64);
  }
};

// Of group `first` of a panel on.
template <typename Code>
const int8_t* CodesFrom(const ActivationPanel& panel, int64_t first) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(Code));
  const int8_t* codes = kBytes == 1
                            ? panel.codes
                            : reinterpret_cast<const int8_t*>(panel.wide_codes);
  return codes + first * panel.rows * kRowBytes * kBytes;
}

// Now and then some rows of `out`, to which the products of the next panel go.
// Without it stores wait for lines that the L2 or L3 cache or another core has,
// and tiles that are stored behind them wait too. All rows at once would fill
// the places for lines on their way to the L1 cache, and loads of tiles wait.
// Of a smaller panel some are not its own, which costs others a little time; to
// leave them out in the loop of products took 1 to 2.6 % of all panels' time.
[[gnu::always_inline]] inline void FetchToWrite(int64_t g, const float* out,
                                                int64_t out_stride) {
  constexpr int kGroups = 8, kRowsAtOnce = 4;
  if (__builtin_expect(g % kGroups != 1, 1)) return;
  out += g / kGroups * kRowsAtOnce % kRowsMost * out_stride;
#pragma GCC unroll 4
  for (int m = 0; m < kRowsAtOnce; ++m) {
    __asm__ volatile("prefetchw %0" : : "m"(out[m * out_stride]));
  }
}

// total[m] += dots * weight scale * activation scale, of group i of `weights`,
// for rows m of [kFirst, kEnd).
template <int kFirst, int kEnd, typename Code, int kRows, typename Weights>
[[gnu::always_inline]] inline void AddRows(const Dots<Code, kRows>& dots,
                                           const Weights& weights, int64_t i,
                                           const float* scales, __m512* total) {
  if constexpr (kFirst == kEnd) return;
  const typename Dots<Code, kRows>::Scale weight(weights.Scales(i),
                                                 weights.LowSums(i));
  scales += i * kRows;
#pragma GCC unroll 16
  for (int m = kFirst; m < kEnd; ++m) {
    total[m] = _mm512_fmadd_ps(dots.Scaled(m, weight),
                               _mm512_set1_ps(scales[m]), total[m]);
  }
}

// Stores the products of group g, begins with those of `next` and adds those of
// group g - 1, `before`, which have arrived in memory meanwhile. Of some ten
// orders of these this is the fastest: where low and high bytes are apart, with
// half of the additions between the two, a group takes 80 cycles instead of 88;
// where they are not, one of 44 would take 2 to 12 more (Granite Rapids).
template <typename Slot, typename Code, int kRows, typename Weights>
[[gnu::always_inline]] inline void Step(const GroupOperands& next,
                                        const Weights& weights, int64_t g,
                                        const float* scales,
                                        const Dots<Code, kRows>& before,
                                        Dots<Code, kRows>* dots,
                                        __m512* total) {
  constexpr int kEarly = Slot::kApart ? kRows / 2 : 0;
  const bool more = next.codes != nullptr;
  Slot::StoreLow(dots);
  AddRows<0, kEarly>(before, weights, g - 1, scales, total);
  if (more) Slot::MultiplyLow(next.codes, next.weights);
  Slot::StoreHigh(dots);
  AddRows<kEarly, kRows>(before, weights, g - 1, scales, total);
  if (more) Slot::MultiplyHigh(next.codes);
}

// What goes on in tile registers before and behind a panel's products: those of
// its first two groups have begun, and those of the panel with the codes
// `after` shall begin, which has as many rows, with the same weights.
struct Neighbors {
  bool begun = false;
  const int8_t* after = nullptr;  // None if the number of groups is odd.
  // Where products of the panel after go, or of this one.
  const float* out = nullptr;
};

// out (+)= groups [first, first + count) of a panel times `weights`, which
// begin with group `first`.
template <typename Code, int kRows, typename Weights>
void MultiplyRows(const ActivationPanel& panel, Weights& weights, int64_t first,
                  int64_t count, const Neighbors& neighbors, float* out,
                  int64_t out_stride) {
  using Even = Slot<Code, kRows, 0>;
  using Odd = Slot<Code, kRows, 1>;
  Dots<Code, kRows> even, odd;
  constexpr int64_t kPanelGroup =
      kRows * kRowBytes * static_cast<int64_t>(sizeof(Code));
  const int8_t* codes = CodesFrom<Code>(panel, first);
  const float* scales = panel.scales + first * kRows;
  const auto operands = [&](int64_t g) -> GroupOperands {
    if (g < count) return {codes + g * kPanelGroup, weights.Codes(g)};
    if (neighbors.after == nullptr) return {nullptr, nullptr};
    g -= count;
    return {neighbors.after + g * kPanelGroup, weights.Codes(g)};
  };
  __m512 total[kRows];
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) {
    total[m] = first == 0 ? _mm512_setzero_ps()
                          : _mm512_loadu_ps(out + m * out_stride);
  }
  for (int64_t g = 0; g < 3; ++g) weights.Prepare(g);
  if (!neighbors.begun) {
    Even::Multiply(operands(0));
    Odd::Multiply(operands(1));
  }
  Even::StoreLow(&even);
  Even::StoreHigh(&even);
  Even::Multiply(operands(2));
  int64_t g = 1;
  for (; g + 3 < count; g += 2) {
    weights.Prepare(g + 2);
    weights.Prepare(g + 3);
    const int8_t* next = codes + (g + 2) * kPanelGroup;
    FetchToWrite(g, neighbors.out, out_stride);
    Step<Odd>({next, weights.Codes(g + 2)}, weights, g, scales, even, &odd,
              total);
    Step<Even>({next + kPanelGroup, weights.Codes(g + 3)}, weights, g + 1,
               scales, odd, &even, total);
  }
  // The same with what may be of the next panel.
  for (; g + 1 < count; g += 2) {
    weights.Prepare(g + 2);
    weights.Prepare(g + 3);
    Step<Odd>(operands(g + 2), weights, g, scales, even, &odd, total);
    Step<Even>(operands(g + 3), weights, g + 1, scales, odd, &even, total);
  }
  if (g < count) {
    Step<Odd>(operands(g + 2), weights, g, scales, even, &odd, total);
    AddRows<0, kRows>(odd, weights, g, scales, total);
  } else {
    AddRows<0, kRows>(even, weights, g - 1, scales, total);
  }
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) {
    _mm512_storeu_ps(out + m * out_stride, total[m]);
  }
}

// The same for the number of rows that the panel has.
template <typename Code, typename Weights, int kRows = kRowsMost>
void MultiplyPanel(const ActivationPanel& panel, Weights& weights,
                   int64_t first, int64_t count, const Neighbors& neighbors,
                   float* out, int64_t out_stride) {
  constexpr int kRowsLeast =
      LeastRows(sizeof(Code) == 1 ? kAmxRows : kAmxWideRows);
  if constexpr (kRows > kRowsLeast) {
    if (panel.rows < kRows) {
      return MultiplyPanel<Code, Weights, kRows - 1>(
          panel, weights, first, count, neighbors, out, out_stride);
    }
  }
  MultiplyRows<Code, kRows>(panel, weights, first, count, neighbors, out,
                            out_stride);
}

// Products of one panel.
template <typename Format, typename Code>
void StreamTiles(const ActivationPanel& panel, const TileBytes& tiles,
                 float* out, int64_t out_stride) {
  for (int64_t t = 0; t < tiles.count; ++t) {
    WeightStream<Format, sizeof(Code) == 2> stream(TileAt(tiles, t),
                                                   panel.groups);
    float* to = out + t * tiles.columns;
    MultiplyPanel<Code>(panel, stream, 0, panel.groups, {.out = to}, to,
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
  WeightBlock block;
  for (int64_t first = 0; first < groups; first += kBlockGroups) {
    const int64_t left = groups - first;
    const int64_t taken = left < kBlockGroups ? left : kBlockGroups;
    for (int64_t t = 0; t < tiles.count; ++t) {
      block.Fill<Format, sizeof(Code) == 2>(TileAt(tiles, t), first, taken);
      const NextBlock<Format> next(tiles, t, first, taken, groups);
      float* to = out + t * tiles.columns;
      Neighbors neighbors;
      for (int64_t p = 0; p < count; ++p) {
        next.Fetch(p, count);
        neighbors.begun = neighbors.after != nullptr;
        neighbors.after = nullptr;
        neighbors.out = p + 1 < count
                            ? to + panels[p].rows * out_stride
                            : out + (t + 1) % tiles.count * tiles.columns;
        if (taken % 2 == 0 && p + 1 < count &&
            panels[p + 1].rows == panels[p].rows) {
          neighbors.after = CodesFrom<Code>(panels[p + 1], first);
        }
        MultiplyPanel<Code>(panels[p], block, first, taken, neighbors, to,
                            out_stride);
        to += panels[p].rows * out_stride;
      }
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
