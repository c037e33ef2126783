// Compiled for AVX-512, run on AMX: include nothing that defines inline
// functions outside the intrinsics, and keep everything else file-local.
#include <immintrin.h>

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/quantize_avx512_inl.h"

namespace onegrid::cpu {
namespace {

// Rows of one panel: at most those of a tile register. Rows are spread evenly
// over panels, so that none of kAmxRows or more is smaller than the least.
constexpr int kRowsLeast = 11;
constexpr int kRowsMost = 16;
static_assert(kAmxRows == 2 * kRowsMost);
static_assert(kRowsMost <= kMaxPanelRows);
// Groups of weights decoded at a time: 16 KB, which stay in the L1 cache while
// the panels pass.
constexpr int64_t kBlockGroups = 32;
// Bytes of one decoded group: line j holds for each of 16 weight rows the
// signed codes of k = 4j .. 4j + 3.
constexpr int64_t kGroupBytes = 8 * 64;
// How far ahead of the decoding memory is fetched.
constexpr int64_t kFetchBytes = 4096;
// Bytes of one row's codes in a group, of 8 and of 16 bits.
constexpr int64_t kRowBytes = 32;
constexpr int64_t kWideRowBytes = 2 * kRowBytes;

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
  for (int64_t g = 0; g < groups; ++g) {
    const auto [first, second, scale] =
        QuantizeGroup(x + g * kLinearGroup, 32767.0f);
    const int64_t at = g * rows + row;
    auto* to = reinterpret_cast<__m128i*>(codes + at * kLinearGroup);
    _mm_storeu_si128(to, _mm512_cvtepi32_epi8(first));
    _mm_storeu_si128(to + 1, _mm512_cvtepi32_epi8(second));
    _mm_storeu_si128(to + 2, _mm512_cvtepi32_epi8(_mm512_srai_epi32(first, 8)));
    _mm_storeu_si128(to + 3,
                     _mm512_cvtepi32_epi8(_mm512_srai_epi32(second, 8)));
    scales[at] = scale;
    offsets[at] = 0;  // Weights are signed here.
  }
}

// Group g of a tile's codes, signed, as kGroupBytes says; `place` is where the
// group lies.
template <typename Format>
void Decode(const uint8_t* place, int64_t g, int8_t* to) {
  constexpr int kBits = Format::kBits, kFields = 8 / kBits;
  constexpr int kLines = kLinearGroup / (4 * kFields);
  const __m512i mask = _mm512_set1_epi8(static_cast<char>((1 << kBits) - 1));
  const __m512i bias = _mm512_set1_epi8(static_cast<char>(Format::kBias));
  const uint8_t* lines = place + 64 * kLines * (g % Format::kPlaceGroups);
#pragma GCC unroll 8
  for (int j = 0; j < kLines; ++j) {
    const __m512i line = _mm512_loadu_si512(lines + 64 * j);
#pragma GCC unroll 4
    for (int f = 0; f < kFields; ++f) {
      const __m512i field = f == 0 ? line : _mm512_srli_epi16(line, kBits * f);
      _mm512_store_si512(to + 64 * (kFields * j + f),
                         _mm512_sub_epi8(_mm512_and_si512(field, mask), bias));
    }
  }
}

// Groups [first, first + count) of a tile: codes decoded, scales in floats.
struct WeightBlock {
  alignas(64) int8_t codes[kBlockGroups * kGroupBytes];
  alignas(64) float scales[kBlockGroups * kTileRows];
};

template <typename Format>
void DecodeBlock(const uint8_t* tile, int64_t first, int64_t count,
                 WeightBlock* block) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t g = first + i;
    const uint8_t* place =
        tile + g / Format::kPlaceGroups * Format::kPlaceBytes;
    if (g % Format::kPlaceGroups == 0) {
#pragma GCC unroll 9
      for (int64_t line = 0; line < Format::kPlaceBytes; line += 64) {
        _mm_prefetch(place + kFetchBytes + line, _MM_HINT_T0);
      }
    }
    Decode<Format>(place, g, block->codes + i * kGroupBytes);
    const auto* scales = reinterpret_cast<const __m256i*>(
        place + Format::kPlaceBytes - 2 * kTileRows);
    _mm512_store_ps(block->scales + i * kTileRows,
                    _mm512_cvtph_ps(_mm256_loadu_si256(scales)));
  }
}

// The dot products of one group of a panel with a tile's 16 rows, made in tile
// registers that belong to kSlot (0 or 1) and then stored. Two slots in turn
// hide the latency of one behind the work on the other.
template <typename Code, int kSlot>
struct Slot;

template <int kSlot>
struct Slot<int8_t, kSlot> {
  static constexpr int64_t kBytes = kRowBytes;
  alignas(64) int32_t sums[kRowsMost * kTileRows];

  static void Multiply(const int8_t* codes, const int8_t* weights) {
    TileZero<kSlot>();
    TileLoad<4 + kSlot>(codes, kBytes);
    TileLoad<6 + kSlot>(weights, 64);
    TileDotSigned<kSlot, 4 + kSlot, 6 + kSlot>();
  }
  void Store() { TileStore<kSlot>(sums, 64); }
  __m512i Row(int m) const { return _mm512_load_si512(sums + m * kTileRows); }
};

// High bytes count 256 times. 32 bits hold the sum: 32 * 128 * 32767 < 2^28.
template <int kSlot>
struct Slot<int16_t, kSlot> {
  static constexpr int64_t kBytes = kWideRowBytes;
  alignas(64) int32_t low[kRowsMost * kTileRows];
  alignas(64) int32_t high[kRowsMost * kTileRows];

  static void Multiply(const int8_t* codes, const int8_t* weights) {
    constexpr int kLow = 2 * kSlot, kHigh = 2 * kSlot + 1, kWeights = 6 + kSlot;
    TileZero<kLow>();
    TileZero<kHigh>();
    TileLoad<4>(codes, kBytes);
    TileLoad<5>(codes + kRowBytes, kBytes);
    TileLoad<kWeights>(weights, 64);
    TileDotUnsignedSigned<kLow, 4, kWeights>();
    TileDotSigned<kHigh, 5, kWeights>();
  }
  void Store() {
    TileStore<2 * kSlot>(low, 64);
    TileStore<2 * kSlot + 1>(high, 64);
  }
  __m512i Row(int m) const {
    return _mm512_add_epi32(
        _mm512_load_si512(low + m * kTileRows),
        _mm512_slli_epi32(_mm512_load_si512(high + m * kTileRows), 8));
  }
};

inline const int8_t* CodesOf(const ActivationPanel& panel, const int8_t*) {
  return panel.codes;
}
inline const int8_t* CodesOf(const ActivationPanel& panel, const int16_t*) {
  return reinterpret_cast<const int8_t*>(panel.wide_codes);
}

// total[m] += dots * weight scale * activation scale.
template <int kRows, typename SlotType>
inline void AddGroup(const SlotType& dots, const float* weight_scales,
                     const float* scales, __m512* total) {
  const __m512 weight = _mm512_load_ps(weight_scales);
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) {
    total[m] =
        _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dots.Row(m)), weight),
                        _mm512_set1_ps(scales[m]), total[m]);
  }
}

// out (+)= groups [first, first + count) of a panel times the block.
template <typename Code, int kRows>
void Rows(const ActivationPanel& panel, const WeightBlock& block, int64_t first,
          int64_t count, float* out, int64_t out_stride) {
  using Even = Slot<Code, 0>;
  using Odd = Slot<Code, 1>;
  Even even;
  Odd odd;
  constexpr int64_t kPanelGroup = kRows * Even::kBytes;
  const int8_t* codes =
      CodesOf(panel, static_cast<const Code*>(nullptr)) + first * kPanelGroup;
  const float* scales = panel.scales + first * kRows;
  __m512 total[kRows];
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) {
    total[m] = first == 0 ? _mm512_setzero_ps()
                          : _mm512_loadu_ps(out + m * out_stride);
  }
  Even::Multiply(codes, block.codes);
  if (count > 1) Odd::Multiply(codes + kPanelGroup, block.codes + kGroupBytes);
  for (int64_t g = 0; g < count; g += 2) {
    even.Store();
    if (g + 2 < count) {
      Even::Multiply(codes + (g + 2) * kPanelGroup,
                     block.codes + (g + 2) * kGroupBytes);
    }
    AddGroup<kRows>(even, block.scales + g * kTileRows, scales + g * kRows,
                    total);
    if (g + 1 == count) break;
    odd.Store();
    if (g + 3 < count) {
      Odd::Multiply(codes + (g + 3) * kPanelGroup,
                    block.codes + (g + 3) * kGroupBytes);
    }
    AddGroup<kRows>(odd, block.scales + (g + 1) * kTileRows,
                    scales + (g + 1) * kRows, total);
  }
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) {
    _mm512_storeu_ps(out + m * out_stride, total[m]);
  }
}

template <typename Code>
void PanelRows(const ActivationPanel& panel, const WeightBlock& block,
               int64_t first, int64_t count, float* out, int64_t out_stride) {
  using RowsFunction = void (*)(const ActivationPanel&, const WeightBlock&,
                                int64_t, int64_t, float*, int64_t);
  static constexpr RowsFunction kByRows[kRowsMost - kRowsLeast + 1] = {
      Rows<Code, 11>, Rows<Code, 12>, Rows<Code, 13>,
      Rows<Code, 14>, Rows<Code, 15>, Rows<Code, 16>};
  kByRows[panel.rows - kRowsLeast](panel, block, first, count, out, out_stride);
}

template <typename Format, typename Code>
void Tile(const ActivationPanel* panels, int64_t count, const uint8_t* tile,
          float* out, int64_t out_stride) {
  WeightBlock block;
  Configure();
  const int64_t groups = panels[0].groups;
  for (int64_t first = 0; first < groups; first += kBlockGroups) {
    const int64_t left = groups - first;
    const int64_t taken = left < kBlockGroups ? left : kBlockGroups;
    DecodeBlock<Format>(tile, first, taken, &block);
    float* to = out;
    for (int64_t p = 0; p < count; ++p) {
      PanelRows<Code>(panels[p], block, first, taken, to, out_stride);
      to += panels[p].rows * out_stride;
    }
  }
  TileRelease();
}

}  // namespace

const LinearKernels kLinearKernelsAmx = {
    kRowsMost,
    WideOrder::kBytePlanes,
    QuantizeRow,
    QuantizeRowWide,
    Tile<Int2Layout, int8_t>,
    Tile<Int4Layout, int8_t>,
    Tile<Int8Layout, int8_t>,
    Tile<Int2Layout, int16_t>,
    Tile<Int4Layout, int16_t>,
    Tile<Int8Layout, int16_t>,
};

}  // namespace onegrid::cpu
