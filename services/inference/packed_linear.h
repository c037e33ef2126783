// One matrix of a model, packed for the kernel that runs its grid.
#ifndef SERVICES_INFERENCE_PACKED_LINEAR_H_
#define SERVICES_INFERENCE_PACKED_LINEAR_H_

#include <cstdint>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/int2_linear.h"
#include "kernels/cpu/int4_linear.h"
#include "kernels/cpu/int8_head.h"
#include "kernels/quant/ggml_types.h"

namespace onegrid::inference {

using PackedLinear = std::variant<cpu::PackedInt2Linear, cpu::PackedInt4Linear,
                                  cpu::PackedInt8Linear>;

// A linear of GGUF blocks [n, k] of Q2_0, Q4_0 or Q8_0, row by row; they are
// not needed afterwards; `done` is told of parts while others are packed. Codes
// and scales stay what they are.
// Unimplemented: another type. InvalidArgument: sizes that do not fit or a
// scale that is not finite.
absl::StatusOr<PackedLinear> PackLinear(quant::GgmlType type,
                                        absl::Span<const uint8_t> blocks,
                                        int64_t n, int64_t k,
                                        kernels::ThreadPool& pool,
                                        const cpu::BlocksDone& done = nullptr);

// out [k] = row `row` [0, n) as code * scale: the embedding of one token.
inline void DequantizeRow(const PackedLinear& linear, int64_t row,
                          absl::Span<float> out) {
  std::visit([&](const auto& packed) { packed.DequantizeRow(row, out); },
             linear);
}

inline int64_t PackedElements(const PackedLinear& linear) {
  return std::visit([](const auto& packed) { return packed.n() * packed.k(); },
                    linear);
}

inline int64_t PackedBytes(const PackedLinear& linear) {
  return std::visit([](const auto& packed) { return packed.bytes(); }, linear);
}

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_PACKED_LINEAR_H_
