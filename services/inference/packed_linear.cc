#include "services/inference/packed_linear.h"

#include "absl/strings/str_cat.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"

namespace onegrid::inference {
namespace {

using quant::GgmlType;

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
  // Its error tells the types that there are.
  RETURN_IF_ERROR(quant::GridOfBlocks(type).status());
  RETURN_IF_ERROR(CheckScales(type, blocks));
  if (type == GgmlType::kQ2_0) {
    return cpu::PackedInt2Linear::FromQ2_0(blocks, n, k, pool);
  }
  if (type == GgmlType::kQ4_0) {
    return cpu::PackedInt4Linear::FromQ4_0(blocks, n, k, pool);
  }
  return cpu::PackedInt8Linear::FromQ8_0(blocks, n, k, pool);
}

}  // namespace onegrid::inference
