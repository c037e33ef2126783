#include "kernels/quant/grid_blocks.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/check.h"
#include "kernels/quant/q2_0.h"
#include "kernels/quant/q4_0.h"
#include "kernels/quant/q8_0.h"

namespace onegrid::quant {

GgmlType BlockType(const Grid& grid) {
  if (&grid == &kInt4G32) return GgmlType::kQ4_0;
  if (&grid == &kInt2G64) return GgmlType::kQ2_0;
  KERNELS_CHECK(&grid == &kInt8G32);
  return GgmlType::kQ8_0;
}

absl::StatusOr<const Grid*> GridOfBlocks(GgmlType type) {
  for (const Grid* grid : {&kInt4G32, &kInt2G64, &kInt8G32}) {
    if (BlockType(*grid) == type) return grid;
  }
  const auto traits = TraitsOf(type);
  if (!traits.ok()) return traits.status();
  return absl::UnimplementedError(
      absl::StrCat("no grid is stored as ", traits->name));
}

absl::StatusOr<std::vector<uint8_t>> PackBlocks(const GridMatrix& matrix) {
  switch (BlockType(*matrix.grid)) {
    case GgmlType::kQ4_0:
      return PackQ4_0(matrix);
    case GgmlType::kQ2_0:
      return PackQ2_0(matrix);
    default:
      return PackQ8_0(matrix);
  }
}

absl::StatusOr<GridMatrix> UnpackBlocks(GgmlType type,
                                        absl::Span<const uint8_t> blocks,
                                        int64_t rows, int64_t cols) {
  switch (type) {
    case GgmlType::kQ4_0:
      return UnpackQ4_0(blocks, rows, cols);
    case GgmlType::kQ2_0:
      return UnpackQ2_0(blocks, rows, cols);
    case GgmlType::kQ8_0:
      return UnpackQ8_0(blocks, rows, cols);
    default:
      return GridOfBlocks(type).status();
  }
}

}  // namespace onegrid::quant
