#include <cstdint>

#include "kernels/quant/block_decoders.h"
#include "kernels/quant/ggml_types.h"

namespace onegrid::quant {
namespace {

void Q4_0Block(const uint8_t* b, float* y) {  // d, qs[16]
  const float d = LoadF16(b);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>((b[2 + j] & 15) - 8) * d;
    y[j + 16] = static_cast<float>((b[2 + j] >> 4) - 8) * d;
  }
}

void Q4_1Block(const uint8_t* b, float* y) {  // d, m, qs[16]
  const float d = LoadF16(b);
  const float m = LoadF16(b + 2);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>(b[4 + j] & 15) * d + m;
    y[j + 16] = static_cast<float>(b[4 + j] >> 4) * d + m;
  }
}

void Q5_0Block(const uint8_t* b, float* y) {  // d, qh (u32), qs[16]
  const float d = LoadF16(b);
  const uint32_t qh = LoadU32(b + 2);
  for (int j = 0; j < 16; ++j) {
    const int low = (b[6 + j] & 15) | (((qh >> j) & 1) << 4);
    const int high = (b[6 + j] >> 4) | (((qh >> (j + 16)) & 1) << 4);
    y[j] = static_cast<float>(low - 16) * d;
    y[j + 16] = static_cast<float>(high - 16) * d;
  }
}

void Q5_1Block(const uint8_t* b, float* y) {  // d, m, qh (u32), qs[16]
  const float d = LoadF16(b);
  const float m = LoadF16(b + 2);
  const uint32_t qh = LoadU32(b + 4);
  for (int j = 0; j < 16; ++j) {
    const int low = (b[8 + j] & 15) | (((qh >> j) & 1) << 4);
    const int high = (b[8 + j] >> 4) | (((qh >> (j + 16)) & 1) << 4);
    y[j] = static_cast<float>(low) * d + m;
    y[j + 16] = static_cast<float>(high) * d + m;
  }
}

void Q8_0Block(const uint8_t* b, float* y) {  // d, qs[32]
  const float d = LoadF16(b);
  for (int j = 0; j < 32; ++j) {
    y[j] = static_cast<float>(static_cast<int8_t>(b[2 + j])) * d;
  }
}

void Q2_0Block(const uint8_t* b, float* y) {  // d, qs[16]
  const float d = LoadF16(b);
  for (int j = 0; j < 64; ++j) {
    y[j] = static_cast<float>(((b[2 + j / 4] >> (2 * (j % 4))) & 3) - 1) * d;
  }
}

void TQ2_0Block(const uint8_t* b, float* y) {  // qs[64], d
  const float d = LoadF16(b + 64);
  // Each half of the bytes holds 128 values: a bit pair of all bytes at a time.
  for (int half = 0; half < 2; ++half) {
    for (int pair = 0; pair < 4; ++pair) {
      for (int m = 0; m < 32; ++m) {
        const int q = (b[32 * half + m] >> (2 * pair)) & 3;
        y[128 * half + 32 * pair + m] = static_cast<float>(q - 1) * d;
      }
    }
  }
}

// The digits 0, 1, 2 of `count` bytes, `digits` of each, the first digit of all
// bytes first. A byte is its digits as a base-3 fraction times 256, rounded up:
// multiplied by 3, its carry is the next digit.
float* Ternary(const uint8_t* bytes, int count, int digits, float d, float* y) {
  constexpr int kPowers[] = {1, 3, 9, 27, 81};
  for (int n = 0; n < digits; ++n) {
    for (int m = 0; m < count; ++m) {
      const int fraction = (bytes[m] * kPowers[n]) & 255;
      *y++ = static_cast<float>(((fraction * 3) >> 8) - 1) * d;
    }
  }
  return y;
}

void TQ1_0Block(const uint8_t* b, float* y) {  // qs[48], qh[4], d
  const float d = LoadF16(b + 52);
  y = Ternary(b, 32, 5, d, y);
  y = Ternary(b + 32, 16, 5, d, y);
  Ternary(b + 48, 4, 4, d, y);
}

}  // namespace

BlocksDecoder SmallBlocksDecoder(GgmlType type) {
  switch (type) {
    case GgmlType::kQ4_0:
      return DecodeBlocks<Q4_0Block, 32, 18>;
    case GgmlType::kQ4_1:
      return DecodeBlocks<Q4_1Block, 32, 20>;
    case GgmlType::kQ5_0:
      return DecodeBlocks<Q5_0Block, 32, 22>;
    case GgmlType::kQ5_1:
      return DecodeBlocks<Q5_1Block, 32, 24>;
    case GgmlType::kQ8_0:
      return DecodeBlocks<Q8_0Block, 32, 34>;
    case GgmlType::kTQ1_0:
      return DecodeBlocks<TQ1_0Block, 256, 54>;
    case GgmlType::kTQ2_0:
      return DecodeBlocks<TQ2_0Block, 256, 66>;
    case GgmlType::kQ2_0:
      return DecodeBlocks<Q2_0Block, 64, 18>;
    default:
      return nullptr;
  }
}

}  // namespace onegrid::quant
