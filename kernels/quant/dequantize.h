#ifndef KERNELS_QUANT_DEQUANTIZE_H_
#define KERNELS_QUANT_DEQUANTIZE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/quant/ggml_types.h"

namespace onegrid::quant {

// Decodes a run of whole blocks, for example one row or one tensor.
// src: the blocks as a GGUF file holds them, no alignment needed.
// dst: dst.size() values, in the order of the tensor's elements.
// The result equals ggml's dequantize_row_* bit for bit (f32 arithmetic in the
// same order, no fused multiply-add). Values are passed on as they are: an f16
// scale of infinity or NaN gives such elements, and so does an MXFP4 exponent
// whose largest codes overflow (254 and 255).
// InvalidArgument: dst.size() is not whole blocks, or src.size() is not the
// bytes of dst.size() elements. Unimplemented: unknown type.
// Any threads may decode disjoint outputs at once.
absl::Status Dequantize(GgmlType type, absl::Span<const uint8_t> src,
                        absl::Span<float> dst);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_DEQUANTIZE_H_
