#ifndef KERNELS_QUANT_GGML_TYPES_H_
#define KERNELS_QUANT_GGML_TYPES_H_

#include <cstdint>

#include "absl/status/statusor.h"

namespace onegrid::quant {

// The tensor types of GGUF files that this project reads; values are the ids
// in the file (ggml.h, enum ggml_type).
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
  kQ2_0 = 42,
};

// Elements are stored in blocks; a row is a whole number of blocks.
struct GgmlTypeTraits {
  const char* name;        // As ggml prints it: "Q4_0".
  int64_t block_elements;  // Values in one block.
  int64_t block_bytes;     // Bytes of one block.
};

// Unimplemented: an id outside the enum (the message names the id).
absl::StatusOr<GgmlTypeTraits> TraitsOf(GgmlType type);

// Bytes that `elements` values take: one row, or a whole tensor whose rows are
// whole blocks. InvalidArgument: negative, not a multiple of the block, or so
// many that the byte count overflows. Unimplemented: see TraitsOf.
absl::StatusOr<int64_t> RowBytes(GgmlType type, int64_t elements);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_GGML_TYPES_H_
