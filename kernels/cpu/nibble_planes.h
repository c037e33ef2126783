// Tiles of int8 as two planes of half their bits each, the upper of which tells
// most of them.
#ifndef KERNELS_CPU_NIBBLE_PLANES_H_
#define KERNELS_CPU_NIBBLE_PLANES_H_

#include <cstdint>

#include "kernels/cpu/linear_kernels.h"

namespace onegrid::cpu {

// Byte u of Int8Layout, its code + 128, is 16 * upper + lower. A group of the
// upper plane is one of OddInt4Layout whose scales are those of int8: its codes
// stand for 8 times themselves, the middle of 16 codes of int8, from which a
// code is less by 8 - lower, at most 8. A group of the lower plane has the same
// places without scales. Together they are as many bytes as the int8 group.
inline constexpr int64_t kUpperGroupBytes = SplitInt8Layout::kPlaceBytes;
inline constexpr int64_t kLowerGroupBytes = SplitInt8Layout::kLowerBytes;
static_assert(kUpperGroupBytes + kLowerGroupBytes == kInt8GroupBytes);
// A unit of the upper plane's codes, and the middle of the lower plane's.
inline constexpr int kUpperUnit = 8;
inline constexpr int kLowerMiddle = 8;

// Between a tile of int8 and its parts of both planes, bit for bit. Some 60
// vector instructions a group.
void SplitTile(const uint8_t* tile, int64_t groups, uint8_t* upper,
               uint8_t* lower);
void JoinTile(TileBytes from, int64_t groups, uint8_t* tile);

// values [32][16] of a group's 16 rows: what the upper plane tells of the
// weights, and what it leaves out of them. Both sum up to them exactly.
void ExpandUpper(TileBytes group, float* values);
void ExpandLower(TileBytes group, float* values);

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_NIBBLE_PLANES_H_
