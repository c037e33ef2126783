// Compiled for AVX-512, run on AMX.
#include "kernels/cpu/simd_avx512.h"
// After the vectors it works on.
#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/attention_kernels_inl.h"

namespace onegrid::cpu {
namespace {

// Three tile registers of rows: all of them share the tiles of the cache.
constexpr int kBlockRows = 48;
constexpr int kTileRows = 16;
static_assert(kBlockRows <= kMaxBlockQueryRows);
// Codes that a tile register holds of a row, as bytes.
constexpr int kTileCodes = 64;
static_assert(kPageTokens == kTileCodes);

// Codes of a query as their d low bytes, then their high ones.
void QuantizeQueryBytes(const float* x, int64_t d, float factor, int r,
                        const QueryPanel& panel) {
  const float amax = LargestMagnitude(x, d);
  const F inverse = Set(InverseStep(amax));
  auto* bytes = reinterpret_cast<int8_t*>(panel.codes + r * d);
  for (int64_t i = 0; i < d; i += kLanes) {
    const __m512i codes = _mm512_cvtps_epi32(Load(x + i) * inverse);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + i),
                     _mm512_cvtepi32_epi8(codes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + d + i),
                     _mm512_cvtepi32_epi8(_mm512_srai_epi32(codes, 8)));
  }
  panel.scales[r] = amax / 32767.0f * factor;
}

// Rows of a tile register for `rows` rows: of more than one register's the last
// is worked on as a whole, whatever its other rows hold.
inline int RegisterRows(int rows) {
  return rows < kTileRows ? rows : kTileRows;
}
inline int Registers(int rows) { return (rows + kTileRows - 1) / kTileRows; }
inline int RowsFrom(int first, int rows) { return RegisterRows(rows - first); }

// Tile registers: 0 .. 3 sums, 4 and 5 low and high bytes of rows of codes, 6
// and 7 two tiles of the cache.
void Configure(int rows, int bytes) {
  TileConfig config;
  for (int i = 0; i < 4; ++i) config.Set(i, rows, 64);
  for (int i = 4; i < 6; ++i) config.Set(i, rows, bytes);
  for (int i = 6; i < 8; ++i) config.Set(i, bytes / 4, 64);
  config.Load();
}

// Dot products with a tile of 16, of the bytes of each kind.
struct ByteDots {
  alignas(64) int32_t low[kTileRows * kKeyTile];
  alignas(64) int32_t high[kTileRows * kKeyTile];

  F Row(int r) const {
    return _mm512_cvtepi32_ps(_mm512_add_epi32(
        _mm512_load_si512(low + r * kKeyTile),
        _mm512_slli_epi32(_mm512_load_si512(high + r * kKeyTile), 8)));
  }
};

// With two neighbouring tiles, so that four sums hide the latency of a product.
struct PairDots {
  ByteDots left, right;

  void Store() {
    TileStore<0>(left.low, 64);
    TileStore<1>(left.high, 64);
    TileStore<2>(right.low, 64);
    TileStore<3>(right.high, 64);
  }
};

inline void ZeroSums() {
  TileZero<0>();
  TileZero<1>();
  TileZero<2>();
  TileZero<3>();
}

// Loads low and high bytes of codes, and two tiles.
inline void LoadTiles(const int8_t* low, const int8_t* high, int64_t stride,
                      const int8_t* left, const int8_t* right) {
  TileLoad<4>(low, stride);
  TileLoad<5>(high, stride);
  TileLoad<6>(left, 64);
  TileLoad<7>(right, 64);
}

// multiply(i, dots) and finish(i, dots) for 0 <= i < count: vectors work on
// what tiles have left while these take the next.
template <typename Multiply, typename Finish>
inline void Pipelined(int64_t count, Multiply multiply, Finish finish) {
  PairDots dots[2];
  for (int64_t i = 0; i <= count; ++i) {
    if (i < count) multiply(i, &dots[i & 1]);
    if (i > 0) finish(i - 1, dots[(i - 1) & 1]);
  }
}

void StoreScores(const ByteDots& dots, const float* row_scales, int rows,
                 const float* key_scales, float* scores, int64_t stride) {
  const F keys = Load(key_scales);
  for (int r = 0; r < rows; ++r) {
    Store(scores + r * stride, dots.Row(r) * (keys * Set(row_scales[r])));
  }
}

// Of pairs of tiles of keys: a page has an even number of them.
void ScoresInt8Tiles(const QueryPanel& panel, int64_t d, const int8_t* keys,
                     const float* key_scales, const int8_t* next,
                     int first_tile, int end_tile, float* scores,
                     int64_t stride) {
  const int bytes = d < kTileCodes ? static_cast<int>(d) : kTileCodes;
  const int64_t first_pair = first_tile / 2;
  const int64_t pairs = (end_tile + 1) / 2 - first_pair;
  const int registers = Registers(panel.rows);
  const auto row_of = [&](int64_t i) {
    return static_cast<int>(i % registers) * kTileRows;
  };
  const auto key_of = [&](int64_t i) {
    return (first_pair + i / registers) * 2 * kKeyTile;
  };
  const int8_t* end = keys + (first_pair + pairs) * 2 * kKeyTile * d;
  Configure(RegisterRows(panel.rows), bytes);
  Pipelined(
      pairs * registers,
      [&](int64_t i, PairDots* dots) {
        const auto* codes =
            reinterpret_cast<const int8_t*>(panel.codes + row_of(i) * d);
        const int8_t* tiles = keys + key_of(i) * d;
        ZeroSums();
        for (int64_t k = 0; k < d; k += bytes) {
          LoadTiles(codes + k, codes + d + k, 2 * d, tiles + kKeyTile * k,
                    tiles + kKeyTile * (d + k));
          if (registers == 1) {
            FetchAfter(tiles + 2 * kKeyTile * k, 2 * kKeyTile * bytes, end,
                       next);
          }
          TileDotUnsignedSigned<0, 4, 6>();
          TileDotUnsignedSigned<2, 4, 7>();
          TileDotSigned<1, 5, 6>();
          TileDotSigned<3, 5, 7>();
        }
        dots->Store();
      },
      [&](int64_t i, const PairDots& dots) {
        const int rows = RowsFrom(row_of(i), panel.rows);
        const float* row_scales = panel.scales + row_of(i);
        float* to = scores + row_of(i) * stride + key_of(i);
        const float* scales = key_scales + key_of(i);
        StoreScores(dots.left, row_scales, rows, scales, to, stride);
        StoreScores(dots.right, row_scales, rows, scales + kKeyTile,
                    to + kKeyTile, stride);
      });
  TileRelease();
}

// Weights of a part's tokens before those of groups: of a page and row those of
// tokens 0 - 7, 16 - 23, 32 - 39, 48 - 55, then the others, since bytes are
// packed so by lanes of 16.
struct TileTokenWeights {
  alignas(64) int16_t codes[kPartPages][kBlockRows * kPageTokens];
  float units[kBlockRows];  // times 2^15
};

void QuantizeTileWeights(const float* p, int rows, const PartValues& values,
                         TileTokenWeights* weights) {
  QuantizeWeights(
      p, rows, values, weights->units, [&](int page, int r, int64_t t, F x) {
        const __m256i codes = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x));
        int16_t* to = weights->codes[page] + r * kPageTokens + t / 2;
        _mm_store_si128(reinterpret_cast<__m128i*>(to),
                        _mm256_castsi256_si128(codes));
        _mm_store_si128(reinterpret_cast<__m128i*>(to + 32),
                        _mm256_extracti128_si256(codes, 1));
      });
}

// Weights of a part's tokens in one group: of a page and row low bytes, then
// high ones.
using GroupWeightBytes = int8_t[kPartPages][kBlockRows * 2 * kPageTokens];

void WeighGroup(const TileTokenWeights& weights, int rows,
                const PartValues& values, int64_t group,
                GroupWeightBytes& bytes) {
  const __m512i low_byte = _mm512_set1_epi16(255);
  for (int page = 0; page < values.count; ++page) {
    const int16_t* scales =
        values.pages[page].group_scales + group * kPageTokens;
    const __m512i first = _mm512_loadu_si512(scales);
    const __m512i second = _mm512_loadu_si512(scales + 32);
    const __m512i even = _mm512_shuffle_i64x2(first, second, 0x88);
    const __m512i odd = _mm512_shuffle_i64x2(first, second, 0xdd);
    for (int r = 0; r < rows; ++r) {
      const int16_t* codes = weights.codes[page] + r * kPageTokens;
      const __m512i a = _mm512_mulhrs_epi16(_mm512_load_si512(codes), even);
      const __m512i b = _mm512_mulhrs_epi16(_mm512_load_si512(codes + 32), odd);
      int8_t* to = bytes[page] + r * 2 * kPageTokens;
      _mm512_store_si512(to,
                         _mm512_packus_epi16(_mm512_and_si512(a, low_byte),
                                             _mm512_and_si512(b, low_byte)));
      _mm512_store_si512(to + kPageTokens,
                         _mm512_packus_epi16(_mm512_srli_epi16(a, 8),
                                             _mm512_srli_epi16(b, 8)));
    }
  }
}

void SumValuesInt8Tiles(const float* p, int rows, const PartValues& values,
                        int64_t d, float* sums) {
  constexpr int64_t kTile = kKeyTile * kPageTokens;
  const int64_t registers = Registers(rows);
  const int64_t steps = d / kValueGroup * registers;
  TileTokenWeights weights;
  QuantizeTileWeights(p, rows, values, &weights);
  alignas(64) GroupWeightBytes bytes;
  const auto row_of = [&](int64_t i) {
    return static_cast<int>(i % registers) * kTileRows;
  };
  Configure(RegisterRows(rows), kTileCodes);
  Pipelined(
      steps,
      [&](int64_t i, PairDots* dots) {
        const int64_t group = i / registers;
        if (i % registers == 0) {
          WeighGroup(weights, rows, values, group, bytes);
        }
        ZeroSums();
        for (int page = 0; page < values.count; ++page) {
          const int8_t* low = bytes[page] + row_of(i) * 2 * kPageTokens;
          const int8_t* tiles = values.pages[page].codes + 2 * group * kTile;
          LoadTiles(low, low + kPageTokens, 2 * kPageTokens, tiles,
                    tiles + kTile);
          if (registers == 1) {
            FetchValuesAfter(values, page, group, d / kValueGroup);
          }
          TileDotUnsignedSigned<0, 4, 6>();
          TileDotUnsignedSigned<2, 4, 7>();
          TileDotUnsignedSigned<1, 5, 6>();
          TileDotUnsignedSigned<3, 5, 7>();
        }
        dots->Store();
      },
      [&](int64_t i, const PairDots& dots) {
        const int first = row_of(i);
        float* to = sums + first * d + i / registers * kValueGroup;
        for (int r = 0; r < RowsFrom(first, rows); ++r) {
          const F unit = Set(weights.units[first + r]);
          Store(to + r * d, dots.left.Row(r) * unit);
          Store(to + r * d + kKeyTile, dots.right.Row(r) * unit);
        }
      });
  TileRelease();
}

}  // namespace

const AttentionKernels kAttentionKernelsAmx = {
    kBlockRows, QuantizeKey, QuantizeQueryBytes, ScoresInt8Tiles,
    Softmax,    Join,        SumValuesInt8Tiles, AddValuesF32,
};

}  // namespace onegrid::cpu
