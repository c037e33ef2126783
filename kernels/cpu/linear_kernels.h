#ifndef KERNELS_CPU_LINEAR_KERNELS_H_
#define KERNELS_CPU_LINEAR_KERNELS_H_

#include <cstdint>

#include "kernels/base/cpu_features.h"

// The inner loops of the linear layers, one set for each instruction set. This
// header is included by files compiled for AVX2, AVX-512 and AMX, so it holds
// plain data and declarations only: an inline function here could be emitted
// with instructions that the running processor lacks.

namespace onegrid::cpu {

// Elements along K that share one scale, of activations and of int4 and int8.
inline constexpr int kLinearGroup = 32;
// The same of int2.
inline constexpr int kInt2Group = 64;
// Output rows of one weight tile.
inline constexpr int kTileRows = 16;
// Most activation rows in one panel, without and with AMX.
inline constexpr int kPanelRows = 12;
inline constexpr int kMaxPanelRows = 16;
// Bits of an activation's code.
enum class CodeBits { k8, k16 };

// Rows from which on AMX is faster than AVX-512, for codes of 8 and of 16 bits:
// below it what a tile costs whatever it holds is shared by too few.
inline constexpr int64_t kAmxRows = 9;
inline constexpr int64_t kAmxWideRows = 4;
// How far ahead of a sweep over tiles memory is fetched into the L2 cache, and
// into the L1 cache, which asks for so few lines at a time that it would wait.
inline constexpr int64_t kFetchL2Bytes = 16384;
inline constexpr int64_t kFetchL1Bytes = 4096;
// What kernels that do not decode weights first have as LinearKernels'
// pass_bytes.
inline constexpr int64_t kPassBytes = 384 * 1024;
// A group of activations no larger than this becomes zero: 127 / amax would
// leave the range of a float.
inline constexpr float kSmallestAmax = 1e-30f;

// A weight tile holds kTileRows rows of the weight matrix, group after group:
//   int4: 4 x 64 bytes of codes, then 16 f16 scales. Byte 4r + b of line j has
//         in its low nibble the code of row r, k = 8j + b, and in its high
//         nibble that of k = 8j + 4 + b, both as code + 8.
//   int8: 8 x 64 bytes of codes, then 16 f16 scales. Byte 4r + b of line j is
//         the code of row r, k = 4j + b, as code + 128.
//   int2: for 64 elements 4 x 64 bytes of codes, then 16 f16 scales. Byte 4r +
//   b
//         of line j has in bits 2f, 2f + 1 the code of row r, k = 16j + 4f + b,
//         as code + 1.
//   bf16: for 32 elements, for each k the values of 16 rows.
// Rows past the end of the matrix are zero, or their scale is.
inline constexpr int64_t kInt2GroupBytes = 4 * 64 + 32;
inline constexpr int64_t kInt4GroupBytes = 4 * 64 + 32;
inline constexpr int64_t kInt8GroupBytes = 8 * 64 + 32;
inline constexpr int64_t kBf16GroupBytes = 32 * kTileRows * 2;

// The same for the kernels of any of them: a line holds in each byte 8 / kBits
// numbers of kBits, four columns apart: a code is one times kStep, less kBias.
// kPlaceGroups groups of 32 share a place of kPlaceBytes, which ends with their
// scales. If kLowerBytes is not 0, a line's lower nibbles lie in another plane,
// which has so many bytes for each place.
struct Int2Layout {
  static constexpr int kBits = 2;
  static constexpr int kStep = 1;
  static constexpr int kBias = 1;
  static constexpr int kPlaceGroups = 2;
  static constexpr int64_t kPlaceBytes = kInt2GroupBytes;
  static constexpr int64_t kLowerBytes = 0;
};
struct Int4Layout {
  static constexpr int kBits = 4;
  static constexpr int kStep = 1;
  static constexpr int kBias = 8;
  static constexpr int kPlaceGroups = 1;
  static constexpr int64_t kPlaceBytes = kInt4GroupBytes;
  static constexpr int64_t kLowerBytes = 0;
};
// Odd codes, -15 to 15: the middles of what the upper halves of int8 stand for,
// in units of 8.
struct OddInt4Layout : Int4Layout {
  static constexpr int kStep = 2;
  static constexpr int kBias = 15;
};
struct Int8Layout {
  static constexpr int kBits = 8;
  static constexpr int kStep = 1;
  static constexpr int kBias = 128;
  static constexpr int kPlaceGroups = 1;
  static constexpr int64_t kPlaceBytes = kInt8GroupBytes;
  static constexpr int64_t kLowerBytes = 0;
};
// Int8Layout in two planes, as nibble_planes.h says.
struct SplitInt8Layout : Int8Layout {
  static constexpr int64_t kPlaceBytes = OddInt4Layout::kPlaceBytes;
  static constexpr int64_t kLowerBytes = 4 * 64;
};

// How 32 codes of 16 bits lie: in the order 0 2 1 3 of each four; or, in each
// group of a panel, the low bytes of all rows and then their high bytes. Of a
// panel of at most kStackedRows rows the low bytes are less by 128.
// The first because weights' codes, bytes of a 32-bit lane, become numbers of
// 16 bits by masking the lane and shifting it, which leaves bytes 0 and 2, and
// 1 and 3, side by side.
enum class WideOrder { k0213, kBytePlanes };
inline constexpr int kStackedRows = kMaxPanelRows / 2;

// Behind the codes of the last panel lie so many more bytes, which AMX reads as
// rows that are not there.
inline constexpr int64_t kCodePadding = kMaxPanelRows * 2 * kLinearGroup;

// Some rows of quantized activations, interleaved group by group:
// codes [groups][rows][32], in 16 bits as WideOrder says, scales and offsets
// [groups][rows]. An offset is
// -8 * (sum of the row's codes in the group): what the 8 added to each int4
// code adds to a dot product, negated; for odd_int4_tile -15 times it.
struct ActivationPanel {
  const int8_t* codes;        // nullptr if they have 16 bits
  const int16_t* wide_codes;  // nullptr if they have 8
  const float* scales;
  const int32_t* offsets;
  int64_t groups;
  int rows;
};

// Where a tile lies, or some of one matrix, equally far from each other;
// `lower` only if they have two planes.
struct TileBytes {
  const uint8_t* at;
  const uint8_t* lower = nullptr;
  int64_t count = 1;
  int64_t stride = 0;  // Bytes from one to the next, if there is a next one.
  int64_t lower_stride = 0;
  int64_t columns = kTileRows;  // Of the products, from one to the next.
};

// Products of all rows of `count` panels that follow each other with tiles:
// out[m * out_stride + t * tile.columns + r] = sum over groups of (exact
// integer dot product) * weight scale * activation scale, t < tile.count, r
// < 16. int2 takes an even number of groups.
using TileKernel = void (*)(const ActivationPanel* panels, int64_t count,
                            const TileBytes& tile, float* out,
                            int64_t out_stride);

struct LinearKernels {
  // Most rows of a panel that these kernels take.
  int panel_rows;
  // Most tiles that they take at once.
  int tiles_most;
  // Tiles that should be read side by side (tile_slices.h) for one panel of so
  // many rows, at most tiles_most; 0 where slices should not be taken of such
  // panels' weights, nullptr: of none.
  int (*streams)(int rows);
  // Activations that should pass over the weights together: as many as the L2
  // cache keeps, if weights have to be decoded for each pass.
  int64_t pass_bytes;
  WideOrder wide_order;
  // Quantizes one row x [32 * groups]: scale = max |x| / 127, codes rounded to
  // nearest even, into row `row` of a panel of `rows` rows.
  void (*quantize_row)(const float* x, int64_t groups, int row, int rows,
                       int8_t* codes, float* scales, int32_t* offsets);
  // The same in 16 bits: scale = max |x| / 32767.
  void (*quantize_row_wide)(const float* x, int64_t groups, int row, int rows,
                            int16_t* codes, float* scales, int32_t* offsets);
  // Of activations in 8 bits, by the weights' grid.
  TileKernel int2_tile;
  TileKernel int4_tile;
  TileKernel int8_tile;
  TileKernel split_int8_tile;
  TileKernel odd_int4_tile;
  // Of activations in 16 bits.
  TileKernel int2_wide_tile;
  TileKernel int4_wide_tile;
  TileKernel int8_wide_tile;
  TileKernel split_int8_wide_tile;
  // To be called by a thread before its first product of a batch and after the
  // last, if not nullptr: they set up and release what the kernels need. None
  // of the batch's panels has more rows than `largest`.
  void (*begin)(const ActivationPanel& largest);
  void (*end)();
};

// The same with weights and activations in floats.
struct FloatKernels {
  // Expands consecutive groups of one tile to w [32 * groups][16] floats; of
  // int2 from an even group on, an even number.
  void (*int2_expand)(const uint8_t* tile, int64_t groups, float* w);
  void (*int4_expand)(const uint8_t* tile, int64_t groups, float* w);
  void (*int8_expand)(const uint8_t* tile, int64_t groups, float* w);
  void (*bf16_expand)(const uint8_t* tile, int64_t groups, float* w);
  // out[m][r] (+)= sum over k of x[m * x_stride + k] * w[k][r], any rows >= 0.
  void (*f32_tile)(const float* x, int64_t x_stride, int64_t rows,
                   const float* w, int64_t k, bool accumulate, float* out,
                   int64_t out_stride);
};

extern const LinearKernels kLinearKernelsPortable;
extern const LinearKernels kLinearKernelsAvx2;
extern const LinearKernels kLinearKernelsAvxVnni;
extern const LinearKernels kLinearKernelsAvx512;
extern const LinearKernels kLinearKernelsZen;  // AVX-512, for AMD's processors
extern const LinearKernels kLinearKernelsAmx;
extern const FloatKernels kFloatKernelsPortable;
extern const FloatKernels kFloatKernelsAvx2;
extern const FloatKernels kFloatKernelsAvx512;

// The sets for isa, which the processor must support; the linear one for
// products of so many rows of activations.
const LinearKernels& LinearKernelsFor(kernels::Isa isa, int64_t rows,
                                      CodeBits bits);
const FloatKernels& FloatKernelsFor(kernels::Isa isa);

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_LINEAR_KERNELS_H_
