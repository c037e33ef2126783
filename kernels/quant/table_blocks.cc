#include <cstdint>
#include <cstring>

#include "kernels/quant/block_decoders.h"
#include "kernels/quant/ggml_types.h"

namespace onegrid::quant {
namespace {

// Levels of a normal distribution; part of the format.
constexpr int8_t kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};
// Twice the values of a 4-bit float with 2 bits of exponent and 1 of mantissa.
constexpr int8_t kE2M1Doubled[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                     0, -1, -2, -3, -4, -6, -8, -12};

// 32 values of a table: low nibbles of qs[16], then the high ones.
void Nibbles(const int8_t (&table)[16], const uint8_t* qs, float d, float* y) {
  for (int j = 0; j < 16; ++j) {
    y[j] = d * static_cast<float>(table[qs[j] & 15]);
    y[j + 16] = d * static_cast<float>(table[qs[j] >> 4]);
  }
}

void Iq4NlBlock(const uint8_t* b, float* y) {  // d, qs[16]
  Nibbles(kIq4Levels, b + 2, LoadF16(b), y);
}

// d, scales_h (u16), scales_l[4], qs[128]
void Iq4XsBlock(const uint8_t* b, float* y) {
  const float d = LoadF16(b);
  const int scales_h = LoadU16(b + 2);
  for (int sub = 0; sub < 8; ++sub) {
    const int low = (b[4 + sub / 2] >> (4 * (sub % 2))) & 15;
    const int high = (scales_h >> (2 * sub)) & 3;
    const float ds = d * static_cast<float>((low | (high << 4)) - 32);
    Nibbles(kIq4Levels, b + 8 + 16 * sub, ds, y + 32 * sub);
  }
}

// Half of 2^(e - 127), the halving for kE2M1Doubled. Exponents 0 and 1 give
// subnormal numbers; 255, in the format's specification a NaN, is 2^127, as in
// ggml and Python's gguf.
float HalfOfE8M0(uint8_t e) {
  const uint32_t bits =
      e < 2 ? uint32_t{0x00200000} << e : static_cast<uint32_t>(e - 1) << 23;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

void Mxfp4Block(const uint8_t* b, float* y) {  // e, qs[16]
  Nibbles(kE2M1Doubled, b + 1, HalfOfE8M0(b[0]), y);
}

}  // namespace

BlocksDecoder TableBlocksDecoder(GgmlType type) {
  switch (type) {
    case GgmlType::kIQ4_NL:
      return DecodeBlocks<Iq4NlBlock, 32, 18>;
    case GgmlType::kIQ4_XS:
      return DecodeBlocks<Iq4XsBlock, 256, 136>;
    case GgmlType::kMXFP4:
      return DecodeBlocks<Mxfp4Block, 32, 17>;
    default:
      return nullptr;
  }
}

}  // namespace onegrid::quant
