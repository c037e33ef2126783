#ifndef KERNELS_QUANT_CT_INT4_H_
#define KERNELS_QUANT_CT_INT4_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

// compressed-tensors "pack-quantized" with 4 bits (`weight_packed`): each row
// is ceil(cols / 8) int32 words, element i is nibble i % 8 (lowest first) of
// word i / 8, stored as code + 8. Unused nibbles of the last word are zero. Not
// GGUF's order, which pairs elements j and j + 16: see q4_0.h.
namespace onegrid::quant {

// codes [rows, cols], each -8..7 -> words [rows, ceil(cols / 8)].
// InvalidArgument: a code out of range, or sizes that do not fit.
absl::StatusOr<std::vector<int32_t>> PackCtInt4(absl::Span<const int8_t> codes,
                                                int64_t rows, int64_t cols);

// words [rows, ceil(cols / 8)] -> codes [rows, cols].
// InvalidArgument: sizes that do not fit.
absl::StatusOr<std::vector<int8_t>> UnpackCtInt4(
    absl::Span<const int32_t> words, int64_t rows, int64_t cols);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_CT_INT4_H_
