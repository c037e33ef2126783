// Weights decoded for AMX tile registers, and how their memory arrives in time.
// For the file that is compiled for AMX: everything is local to it.
#ifndef KERNELS_CPU_AMX_WEIGHTS_INL_H_
#define KERNELS_CPU_AMX_WEIGHTS_INL_H_

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/load_line_avx512_inl.h"

namespace onegrid::cpu {
namespace {

// Groups of a tile that are decoded at a time: 18 KB, all that Gemma 3 1B has,
// which stay in the L1 cache while all panels are multiplied by them. Tiles
// side by side, decoded into the L2 cache, took 47.5 cycles a group and panel
// instead of 44.
constexpr int64_t kBlockGroups = 36;
// Bytes of one decoded group: line j holds for each of 16 weight rows the
// signed codes of k = 4j .. 4j + 3.
constexpr int64_t kGroupBytes = 8 * 64;
// Low and high bytes of up to kStackedRows rows are the rows of one tile, so
// both have signs: what low bytes are less by there.
constexpr int kLowBias = 128;

// Some groups of a tile: signed codes, as kGroupBytes says, scales in floats,
// and what kLowBias takes from the sum of low bytes.
template <int64_t kGroups>
struct DecodedGroups {
  alignas(64) int8_t codes[kGroups * kGroupBytes];
  alignas(64) float scales[kGroups * kTileRows];
  alignas(64) int32_t low_sums[kGroups * kTileRows];
};

// The codes of field f of each byte of a line, with signs. Of 4 bits, with all
// bits from the uppermost one on turned over and alike, they are linear in
// their bits: one instruction, whose matrix has a byte for each bit of the
// result, the lowest in the uppermost byte.
template <typename Format>
inline __m512i CodesOf(__m512i line, int f) {
  constexpr int kBits = Format::kBits;
  if constexpr (kBits == 4) {
    constexpr bool kOdd = Format::kStep == 2;
    static_assert(Format::kBias == (kOdd ? 15 : 8));
    constexpr uint64_t kMatrix = kOdd ? 0x0001020408080808 : 0x0102040808080808;
    constexpr int kTurned = kOdd ? 0xf1 : 0xf8;
    const auto matrix = static_cast<int64_t>(kMatrix << (kBits * f));
    return _mm512_gf2p8affine_epi64_epi8(line, _mm512_set1_epi64(matrix),
                                         kTurned);
  }
  static_assert(kBits == 4 || Format::kStep == 1);
  const __m512i field = f == 0 ? line : _mm512_srli_epi16(line, kBits * f);
  const __m512i mask = _mm512_set1_epi8(static_cast<char>((1 << kBits) - 1));
  return _mm512_sub_epi8(_mm512_and_si512(field, mask),
                         _mm512_set1_epi8(static_cast<char>(Format::kBias)));
}

// Decodes group g of a tile as group i of `to`; `low_sums` only if kLowSums.
// Fetches what lies some groups ahead if kFetches. Inline, or what the caller
// has in vector registers would be stored and loaded around it.
template <typename Format, bool kLowSums, bool kFetches, int64_t kGroups>
[[gnu::always_inline]] inline void Decode(TileBytes tile, int64_t g, int64_t i,
                                          DecodedGroups<kGroups>* to) {
  constexpr int kBits = Format::kBits, kFields = 8 / kBits;
  constexpr int kLines = kLinearGroup / (4 * kFields);
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
      const __m512i code = CodesOf<Format>(line, f);
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

// The groups that are decoded next: those of the next tile, or those that
// follow of the first, or of the tile behind the last. Decoding takes less time
// than their memory does to arrive, so they are fetched while panels are
// multiplied, some lines at a time. Not earlier: of what was fetched eight
// tiles before, the L2 cache had lost a part.
template <typename Format>
class NextBlock {
 public:
  // What follows groups [first, first + taken) of tile t, of `groups`.
  NextBlock(TileBytes tiles, int64_t t, int64_t first, int64_t taken,
            int64_t groups) {
    constexpr int64_t kPlace = Format::kPlaceGroups;
    if (++t == tiles.count && first + taken < groups) {
      t = 0;
      first += taken;
    } else if (t == tiles.count) {
      first = 0;
    }
    const int64_t left = groups - first;
    taken = left < kBlockGroups ? left : kBlockGroups;
    const int64_t places = (taken + kPlace - 1) / kPlace;
    tile_ = TileAt(tiles, t);
    tile_.at += first / kPlace * Format::kPlaceBytes;
    tile_.lower += first / kPlace * Format::kLowerBytes;
    lines_ = places * Format::kPlaceBytes / 64;
    lower_lines_ = places * Format::kLowerBytes / 64;
  }

  // Part `part` of `parts`.
  void Fetch(int64_t part, int64_t parts) const {
    Lines(tile_.at, lines_, part, parts);
    if (Format::kLowerBytes > 0) {
      Lines(tile_.lower, lower_lines_, part, parts);
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

  TileBytes tile_;
  int64_t lines_, lower_lines_;
};

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_AMX_WEIGHTS_INL_H_
