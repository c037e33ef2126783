// One matrix of a model, packed for the kernel that runs its grid.
#ifndef SERVICES_INFERENCE_PACKED_LINEAR_H_
#define SERVICES_INFERENCE_PACKED_LINEAR_H_

#include <cstdint>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/int4_linear.h"
#include "kernels/cpu/int8_head.h"
#include "kernels/quant/ggml_types.h"

namespace onegrid::inference {

using PackedLinear = std::variant<cpu::PackedInt4Linear, cpu::PackedInt8Linear>;

// A linear of GGUF blocks [n, k], row by row; they are not needed afterwards.
// Its values stay what they are: Q4_0 goes to the int4 kernel, Q2_0 too (its
// codes are int4 codes, its scales count for two groups of 32), Q8_0 to the
// int8 kernel.
// Unimplemented: another type. InvalidArgument: sizes that do not fit or a
// scale that is not finite.
absl::StatusOr<PackedLinear> PackLinear(quant::GgmlType type,
                                        absl::Span<const uint8_t> blocks,
                                        int64_t n, int64_t k,
                                        kernels::ThreadPool& pool);

// The same for the embedding, which is also the head: of any of these types, as
// int8 codes.
absl::StatusOr<cpu::PackedInt8Linear> PackEmbedding(
    quant::GgmlType type, absl::Span<const uint8_t> blocks, int64_t n,
    int64_t k, kernels::ThreadPool& pool);

inline int64_t PackedBytes(const PackedLinear& linear) {
  return std::visit([](const auto& packed) { return packed.bytes(); }, linear);
}

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_PACKED_LINEAR_H_
