#ifndef KERNELS_BASE_FLOAT_TYPES_H_
#define KERNELS_BASE_FLOAT_TYPES_H_

#include <bit>
#include <cstdint>

namespace onegrid::kernels {

// Conversions between float and the two 16-bit formats, as bit patterns:
//   bf16: sign, 8 exponent bits, 7 fraction bits (the upper half of a float).
//   f16:  IEEE binary16: sign, 5 exponent bits, 10 fraction bits.
// Narrowing rounds to nearest, ties to even; values too large become infinity,
// small ones subnormal or zero; the sign is kept. A NaN stays a (quiet) NaN.
// Widening is exact. Portable integer code: the result does not depend on the
// processor or its rounding mode.

inline float Bf16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return static_cast<uint16_t>((bits >> 16) | 0x40u);
  }
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float F16ToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // Infinity or NaN.
    return std::bit_cast<float>(sign | 0x7f800000u |
                                ((magnitude & 0x3ffu) << 13));
  }
  if (magnitude < 0x400u) {  // Zero or subnormal: magnitude * 2^-24.
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
}

inline uint16_t FloatToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520: halfway to 65536.
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // 2^-14, the smallest normal f16.
    const uint32_t rebased = magnitude - (112u << 23);
    half = (rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13;
  } else if (magnitude <= 0x33000000u) {  // 2^-25: ties to zero.
    half = 0;
  } else {
    const uint32_t shift = 126u - (magnitude >> 23);  // 14..24
    const uint32_t fraction = (magnitude & 0x7fffffu) | 0x800000u;
    const uint32_t tie = (1u << (shift - 1)) - 1u;
    half = (fraction + tie + ((fraction >> shift) & 1u)) >> shift;
  }
  return static_cast<uint16_t>(sign | half);
}

}  // namespace onegrid::kernels

#endif  // KERNELS_BASE_FLOAT_TYPES_H_
