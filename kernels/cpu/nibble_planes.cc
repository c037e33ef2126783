#include "kernels/cpu/nibble_planes.h"

#include <cstring>

#include "kernels/base/clones.h"
#include "kernels/base/float_types.h"

namespace onegrid::cpu {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kScaleBytes = 2 * kTileRows;
// A line as words that lie anywhere.
using Word = uint64_t __attribute__((aligned(1), may_alias));
constexpr int kWords = kLine / sizeof(Word);
constexpr uint64_t kHighNibbles = 0xF0F0F0F0F0F0F0F0;
constexpr uint64_t kLowNibbles = 0x0F0F0F0F0F0F0F0F;

// Between lines a and b of a tile, of columns 8 j on and 8 j + 4 on, and line j
// of both planes. None overlaps another, or the loops would not become vectors.
ONEGRID_INLINE void SplitLine(const Word* __restrict a,
                              const Word* __restrict b, Word* __restrict upper,
                              Word* __restrict lower) {
  for (int i = 0; i < kWords; ++i) {
    upper[i] = (a[i] >> 4 & kLowNibbles) | (b[i] & kHighNibbles);
    lower[i] = (a[i] & kLowNibbles) | (b[i] << 4 & kHighNibbles);
  }
}

ONEGRID_INLINE void JoinLine(const Word* __restrict upper,
                             const Word* __restrict lower, Word* __restrict a,
                             Word* __restrict b) {
  for (int i = 0; i < kWords; ++i) {
    a[i] = (upper[i] << 4 & kHighNibbles) | (lower[i] & kLowNibbles);
    b[i] = (upper[i] & kHighNibbles) | (lower[i] >> 4 & kLowNibbles);
  }
}

const Word* Words(const uint8_t* line) {
  return reinterpret_cast<const Word*>(line);
}
Word* Words(uint8_t* line) { return reinterpret_cast<Word*>(line); }

void ScalesOf(TileBytes group, float unit, float* scales) {
  for (int r = 0; r < kTileRows; ++r) {
    uint16_t bits;
    std::memcpy(&bits, group.at + kLowerGroupBytes + 2 * r, sizeof(bits));
    scales[r] = unit * kernels::F16ToFloat(bits);
  }
}

// values [32][16] = (nibble * step - middle) * scales[r] of a plane's lines.
ONEGRID_CLONES void ExpandNibbles(const uint8_t* lines, int step, int middle,
                                  const float* scales, float* values) {
  for (int k = 0; k < kLinearGroup; ++k) {
    const uint8_t* line = lines + 64 * (k / 8) + k % 4;
    const int shift = k % 8 < 4 ? 0 : 4;
    for (int r = 0; r < kTileRows; ++r) {
      const int nibble = line[4 * r] >> shift & 15;
      values[k * kTileRows + r] =
          static_cast<float>(nibble * step - middle) * scales[r];
    }
  }
}

}  // namespace

void ExpandUpper(TileBytes group, float* values) {
  float scales[kTileRows];
  ScalesOf(group, kUpperUnit, scales);
  ExpandNibbles(group.at, OddInt4Layout::kStep, OddInt4Layout::kBias, scales,
                values);
}

void ExpandLower(TileBytes group, float* values) {
  float scales[kTileRows];
  ScalesOf(group, 1, scales);
  ExpandNibbles(group.lower, 1, kLowerMiddle, scales, values);
}

ONEGRID_CLONES void SplitTile(const uint8_t* tile, int64_t groups,
                              uint8_t* upper, uint8_t* lower) {
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t j = 0; j < 4; ++j) {
      SplitLine(Words(tile), Words(tile + kLine), Words(upper), Words(lower));
      tile += 2 * kLine;
      upper += kLine;
      lower += kLine;
    }
    std::memcpy(upper, tile, kScaleBytes);
    tile += kScaleBytes;
    upper += kScaleBytes;
  }
}

ONEGRID_CLONES void JoinTile(TileBytes from, int64_t groups, uint8_t* tile) {
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t at = 0; at < kLowerGroupBytes; at += kLine) {
      JoinLine(Words(from.at + at), Words(from.lower + at), Words(tile),
               Words(tile + kLine));
      tile += 2 * kLine;
    }
    std::memcpy(tile, from.at + kLowerGroupBytes, kScaleBytes);
    tile += kScaleBytes;
    from.at += kUpperGroupBytes;
    from.lower += kLowerGroupBytes;
  }
}

}  // namespace onegrid::cpu
