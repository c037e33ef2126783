#include "services/inference/packed_linear.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"

namespace onegrid::inference {
namespace {

using quant::GgmlType;
using quant::GridMatrix;

// The same values on a grid that has all the codes and a group that divides
// the old one: codes unchanged, scales repeated. As GGUF blocks.
absl::StatusOr<std::vector<uint8_t>> BlocksOnGrid(
    GgmlType type, absl::Span<const uint8_t> blocks, int64_t n, int64_t k,
    const quant::Grid& grid) {
  ASSIGN_OR_RETURN(GridMatrix matrix, quant::UnpackBlocks(type, blocks, n, k));
  const int repeats = matrix.grid->group / grid.group;
  std::vector<float> scales;
  scales.reserve(matrix.scales.size() * repeats);
  for (const float scale : matrix.scales) {
    scales.insert(scales.end(), repeats, scale);
  }
  matrix.scales = std::move(scales);
  matrix.grid = &grid;
  return quant::PackBlocks(matrix);
}

// Every block starts with its f16 scale.
absl::Status CheckScales(GgmlType type, absl::Span<const uint8_t> blocks) {
  const size_t block_bytes = (*quant::TraitsOf(type)).block_bytes;
  for (size_t at = 0; at + 2 <= blocks.size(); at += block_bytes) {
    if ((blocks[at + 1] & 0x7C) == 0x7C) {
      return absl::InvalidArgumentError(absl::StrCat(
          "has a scale that is not finite, in block ", at / block_bytes));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PackedLinear> PackLinear(GgmlType type,
                                        absl::Span<const uint8_t> blocks,
                                        int64_t n, int64_t k,
                                        kernels::ThreadPool& pool) {
  if (type == GgmlType::kQ8_0) {
    RETURN_IF_ERROR(CheckScales(type, blocks));
    return cpu::PackedInt8Linear::FromQ8_0(blocks, n, k, pool);
  }
  if (type == GgmlType::kQ4_0) {
    RETURN_IF_ERROR(CheckScales(type, blocks));
    return cpu::PackedInt4Linear::FromQ4_0(blocks, n, k, pool);
  }
  ASSIGN_OR_RETURN(const std::vector<uint8_t> expanded,
                   BlocksOnGrid(type, blocks, n, k, quant::kInt4G32));
  return cpu::PackedInt4Linear::FromQ4_0(expanded, n, k, pool);
}

}  // namespace onegrid::inference
