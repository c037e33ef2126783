#ifndef KERNELS_QUANT_BLOCK_DECODERS_H_
#define KERNELS_QUANT_BLOCK_DECODERS_H_

#include <cstdint>

#include "kernels/base/float_types.h"
#include "kernels/quant/ggml_types.h"

// The decoders behind Dequantize, a file for each family of types. Layouts:
// ggml-common.h; order of the float operations: dequantize_row_* of ggml.
namespace onegrid::quant {

// Decodes `blocks` blocks that lie one after the other from src to dst.
using BlocksDecoder = void (*)(const uint8_t* src, int64_t blocks, float* dst);

// Each is nullptr for a type that is not of its family.
BlocksDecoder SmallBlocksDecoder(GgmlType type);  // One scale for each block.
BlocksDecoder KBlocksDecoder(GgmlType type);  // 256 values, scales of parts.
BlocksDecoder TableBlocksDecoder(GgmlType type);  // Codes index a table.

inline uint16_t LoadU16(const uint8_t* p) {
  return static_cast<uint16_t>(p[0] | (p[1] << 8));
}

inline uint32_t LoadU32(const uint8_t* p) {
  return LoadU16(p) | (static_cast<uint32_t>(LoadU16(p + 2)) << 16);
}

inline float LoadF16(const uint8_t* p) {
  return kernels::F16ToFloat(LoadU16(p));
}

// A BlocksDecoder of a function that decodes one block from b to y.
template <void (*kDecodeBlock)(const uint8_t* b, float* y), int kElements,
          int kBytes>
void DecodeBlocks(const uint8_t* src, int64_t blocks, float* dst) {
  for (int64_t i = 0; i < blocks; ++i) {
    kDecodeBlock(src + i * kBytes, dst + i * kElements);
  }
}

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_BLOCK_DECODERS_H_
