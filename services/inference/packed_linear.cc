#include "services/inference/packed_linear.h"

#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"

namespace onegrid::inference {

using quant::GgmlType;

absl::StatusOr<PackedLinear> PackLinear(GgmlType type,
                                        absl::Span<const uint8_t> blocks,
                                        int64_t n, int64_t k,
                                        kernels::ThreadPool& pool,
                                        const cpu::BlocksDone& done) {
  // Its error tells the types that there are.
  RETURN_IF_ERROR(quant::GridOfBlocks(type).status());
  if (type == GgmlType::kQ2_0) {
    return cpu::PackedInt2Linear::FromQ2_0(blocks, n, k, pool, done);
  }
  if (type == GgmlType::kQ4_0) {
    return cpu::PackedInt4Linear::FromQ4_0(blocks, n, k, pool, done);
  }
  return cpu::PackedInt8Linear::FromQ8_0(blocks, n, k, pool, done);
}

}  // namespace onegrid::inference
