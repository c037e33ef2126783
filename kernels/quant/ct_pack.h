#ifndef KERNELS_QUANT_CT_PACK_H_
#define KERNELS_QUANT_CT_PACK_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"

// compressed-tensors "pack-quantized" with 2, 4 or 8 bits (`weight_packed`):
// each row is ceil(cols * bits / 32) int32 words; element i is the bits
// i * bits .. of the row, lowest first, stored as code + 2^(bits - 1). Unused
// bits of the last word are zero. Not the order of GGUF's Q4_0, which pairs
// elements j and j + 16.
namespace onegrid::quant {

// Bits of the grid's codes: 4 for int4_g32, 2 for int2_g64, 8 for int8_g32.
int CodeBits(const Grid& grid);

// codes [rows, cols], each in -2^(bits - 1) .. 2^(bits - 1) - 1 -> words
// [rows, ceil(cols * bits / 32)]. InvalidArgument: other bits than 2, 4 and 8,
// a code out of range, or sizes that do not fit.
absl::StatusOr<std::vector<int32_t>> PackCt(absl::Span<const int8_t> codes,
                                            int64_t rows, int64_t cols,
                                            int bits);

// The inverse. InvalidArgument: other bits than 2, 4 and 8, or sizes that do
// not fit.
absl::StatusOr<std::vector<int8_t>> UnpackCt(absl::Span<const int32_t> words,
                                             int64_t rows, int64_t cols,
                                             int bits);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_CT_PACK_H_
