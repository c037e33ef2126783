// Compiled for AVX-512, run on AMX.
#include "kernels/cpu/simd_avx512.h"
// After the vectors it works on.
#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/attention_kernels_inl.h"

namespace onegrid::cpu {
namespace {

// Three tile registers of queries, and four blocks of AddValues: all of them
// share the values that are made floats.
constexpr int kBlockRows = 48;
constexpr int kTileQueries = 16;
static_assert(kBlockRows <= kMaxBlockQueryRows);

// Codes of a query as their d low bytes, then their high ones.
void QuantizeQueryBytes(const float* x, int64_t d, float factor, int r,
                        const QueryPanel& panel) {
  alignas(64) int16_t codes[kMaxHeadDim];
  QuantizeQueryCodes(x, d, factor, r, panel, codes);
  auto* bytes = reinterpret_cast<int8_t*>(panel.codes + r * d);
  for (int64_t i = 0; i < d; i += 32) {
    const __m512i both = _mm512_load_si512(codes + i);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes + i),
                        _mm512_cvtepi16_epi8(both));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes + d + i),
                        _mm512_cvtepi16_epi8(_mm512_srli_epi16(both, 8)));
  }
}

// Tile registers: 0 .. 3 sums, 4 and 5 low and high bytes of the queries, 6 and
// 7 two tiles of keys.
void Configure(int rows, int bytes) {
  TileConfig config;
  for (int i = 0; i < 4; ++i) config.Set(i, rows, 64);
  for (int i = 4; i < 6; ++i) config.Set(i, rows, bytes);
  for (int i = 6; i < 8; ++i) config.Set(i, bytes / 4, 64);
  config.Load();
}

// Dot products with 16 keys, of the bytes of each kind.
struct ByteDots {
  alignas(64) int32_t low[kTileQueries * kKeyTile];
  alignas(64) int32_t high[kTileQueries * kKeyTile];
};

// Rows [0, rows) of queries against two neighbouring tiles of keys.
void Multiply(const int8_t* queries, int64_t d, int bytes, const uint8_t* keys,
              ByteDots* left, ByteDots* right) {
  TileZero<0>();
  TileZero<1>();
  TileZero<2>();
  TileZero<3>();
  for (int64_t i = 0; i < d; i += bytes) {
    TileLoad<4>(queries + i, 2 * d);
    TileLoad<5>(queries + d + i, 2 * d);
    TileLoad<6>(keys + kKeyTile * i, 64);
    TileLoad<7>(keys + kKeyTile * (d + i), 64);
    TileDotUnsigned<0, 4, 6>();
    TileDotUnsigned<2, 4, 7>();
    TileDotSignedUnsigned<1, 5, 6>();
    TileDotSignedUnsigned<3, 5, 7>();
  }
  TileStore<0>(left->low, 64);
  TileStore<1>(left->high, 64);
  TileStore<2>(right->low, 64);
  TileStore<3>(right->high, 64);
}

void StoreScores(const ByteDots& dots, const QueryPanel& panel, int first,
                 int rows, const float* key_scales, float* scores,
                 int64_t stride) {
  const F keys = Load(key_scales);
  for (int r = 0; r < rows; ++r) {
    // Sums of unsigned keys may wrap; less the offset they are right again.
    const __m512i dot = _mm512_add_epi32(
        _mm512_add_epi32(
            _mm512_load_si512(dots.low + r * kKeyTile),
            _mm512_slli_epi32(_mm512_load_si512(dots.high + r * kKeyTile), 8)),
        _mm512_set1_epi32(-128 * panel.sums[first + r]));
    Store(scores + r * stride,
          _mm512_cvtepi32_ps(dot) * (keys * Set(panel.scales[first + r])));
  }
}

// Two tiles of keys at a time, so that four sums hide the latency of a product:
// a page has an even number of them.
void ScoresInt8Tiles(const QueryPanel& panel, int64_t d, const uint8_t* keys,
                     const float* key_scales, int first_tile, int end_tile,
                     float* scores, int64_t stride) {
  const int bytes = d < 64 ? static_cast<int>(d) : 64;
  ByteDots left, right;
  int configured = 0;
  for (int first = 0; first < panel.rows; first += kTileQueries) {
    const int remain = panel.rows - first;
    const int rows = remain < kTileQueries ? remain : kTileQueries;
    if (rows != configured) Configure(rows, bytes);
    configured = rows;
    const auto* queries =
        reinterpret_cast<const int8_t*>(panel.codes + first * d);
    for (int tile = first_tile & ~1; tile < end_tile; tile += 2) {
      Multiply(queries, d, bytes, keys + tile * kKeyTile * d, &left, &right);
      float* to = scores + first * stride + tile * kKeyTile;
      const float* scales = key_scales + tile * kKeyTile;
      StoreScores(left, panel, first, rows, scales, to, stride);
      StoreScores(right, panel, first, rows, scales + kKeyTile, to + kKeyTile,
                  stride);
    }
  }
  TileRelease();
}

}  // namespace

const AttentionKernels kAttentionKernelsAmx = {
    kBlockRows,  QuantizeKey, QuantizeQueryBytes, ScoresInt8Tiles,
    SoftmaxStep, Join,        AddValuesInt8,      AddValuesF32,
};

}  // namespace onegrid::cpu
