#ifndef KERNELS_QUANT_GRID_BLOCKS_H_
#define KERNELS_QUANT_GRID_BLOCKS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid.h"

// A matrix on any grid to and from the GGUF blocks that hold it bit for bit:
// int4_g32 in Q4_0, int2_g64 in Q2_0, int8_g32 in Q8_0.
namespace onegrid::quant {

GgmlType BlockType(const Grid& grid);

// The grid that is stored in blocks of this type. Unimplemented: none is.
absl::StatusOr<const Grid*> GridOfBlocks(GgmlType type);

// The matrix as rows of blocks of BlockType(*matrix.grid).
// InvalidArgument: an invalid matrix or a scale that f16 does not hold exactly.
absl::StatusOr<std::vector<uint8_t>> PackBlocks(const GridMatrix& matrix);

// The codes and scales of a file's blocks, unchanged (see q4_0.h, q2_0.h and
// q8_0.h for what a file may hold beyond the grid). InvalidArgument: sizes that
// do not fit, or a scale that is not finite. Unimplemented: no grid is stored
// in this type.
absl::StatusOr<GridMatrix> UnpackBlocks(GgmlType type,
                                        absl::Span<const uint8_t> blocks,
                                        int64_t rows, int64_t cols);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_GRID_BLOCKS_H_
