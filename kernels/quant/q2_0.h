#ifndef KERNELS_QUANT_Q2_0_H_
#define KERNELS_QUANT_Q2_0_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"

// GGUF Q2_0: blocks of 64 elements along a row, 18 bytes each:
//   bytes 0..1  d, f16 little-endian
//   byte 2 + k  bits 2i, 2i + 1: code of element 4k + i, plus 1
// Element = (two bits - 1) * d, so -d, 0, d or 2d. The grid int2_g64 is
// ternary: it never writes 2d.
namespace onegrid::quant {

inline constexpr int64_t kQ2_0BlockBytes = 18;

// The matrix, on int2_g64, as rows of Q2_0 blocks, codes and scales unchanged.
// InvalidArgument: another grid, an invalid matrix, or a scale that f16 does
// not hold exactly (the message names row and group).
absl::StatusOr<std::vector<uint8_t>> PackQ2_0(const GridMatrix& matrix);

// The codes and scales of a file's blocks, unchanged: scales may be negative,
// zero or not dual-exact, and a file may hold the code 2. InvalidArgument: cols
// is not a multiple of 64, the byte count does not fit, or a scale is infinite
// or NaN.
absl::StatusOr<GridMatrix> UnpackQ2_0(absl::Span<const uint8_t> blocks,
                                      int64_t rows, int64_t cols);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_Q2_0_H_
