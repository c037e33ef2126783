#include <cstdint>

#include "kernels/quant/block_decoders.h"
#include "kernels/quant/ggml_types.h"

namespace onegrid::quant {
namespace {

// scales[16] (low nibble scale, high nibble minimum), qs[64], d, dmin
void Q2KBlock(const uint8_t* b, float* y) {
  const float d = LoadF16(b + 80);
  const float dmin = LoadF16(b + 82);
  for (int sub = 0; sub < 16; ++sub) {
    const float ds = d * static_cast<float>(b[sub] & 15);
    const float ms = dmin * static_cast<float>(b[sub] >> 4);
    // Two sub-blocks share a bit pair of the 32 bytes of their half.
    const uint8_t* qs = b + 16 + 32 * (sub / 8) + 16 * (sub % 2);
    const int shift = 2 * (sub % 8 / 2);
    for (int l = 0; l < 16; ++l) {
      y[16 * sub + l] = ds * static_cast<float>((qs[l] >> shift) & 3) - ms;
    }
  }
}

// hmask[32], qs[64], scales[12], d
void Q3KBlock(const uint8_t* b, float* y) {
  const float d = LoadF16(b + 108);
  const uint8_t* scales = b + 96;
  for (int sub = 0; sub < 16; ++sub) {
    // 6 bits: the low four in the nibbles of bytes 0..7, the high two in 8..11.
    const int low = (scales[sub % 8] >> (4 * (sub / 8))) & 15;
    const int high = (scales[8 + sub % 4] >> (2 * (sub / 4))) & 3;
    const float ds = d * static_cast<float>((low | (high << 4)) - 32);
    const uint8_t* qs = b + 32 + 32 * (sub / 8) + 16 * (sub % 2);
    const uint8_t* hmask = b + 16 * (sub % 2);
    const int shift = 2 * (sub % 8 / 2);
    for (int l = 0; l < 16; ++l) {
      const int offset = ((hmask[l] >> (sub / 2)) & 1) != 0 ? 0 : 4;
      const int q = ((qs[l] >> shift) & 3) - offset;
      y[16 * sub + l] = ds * static_cast<float>(q);
    }
  }
}

// Scale and minimum of sub-block j (0..7): 6 bits each, packed in 12 bytes.
void ScaleMinK4(int j, const uint8_t* s, int* scale, int* min) {
  if (j < 4) {
    *scale = s[j] & 63;
    *min = s[j + 4] & 63;
  } else {
    *scale = (s[j + 4] & 15) | ((s[j - 4] >> 6) << 4);
    *min = (s[j + 4] >> 4) | ((s[j] >> 6) << 4);
  }
}

void Q4KBlock(const uint8_t* b, float* y) {  // d, dmin, scales[12], qs[128]
  const float d = LoadF16(b);
  const float dmin = LoadF16(b + 2);
  for (int sub = 0; sub < 8; ++sub) {
    int scale, min;
    ScaleMinK4(sub, b + 4, &scale, &min);
    const float ds = d * static_cast<float>(scale);
    const float ms = dmin * static_cast<float>(min);
    const uint8_t* qs = b + 16 + 32 * (sub / 2);
    const int shift = sub % 2 == 0 ? 0 : 4;
    for (int l = 0; l < 32; ++l) {
      y[32 * sub + l] = ds * static_cast<float>((qs[l] >> shift) & 15) - ms;
    }
  }
}

// d, dmin, scales[12], qh[32], qs[128]
void Q5KBlock(const uint8_t* b, float* y) {
  const float d = LoadF16(b);
  const float dmin = LoadF16(b + 2);
  const uint8_t* qh = b + 16;
  for (int sub = 0; sub < 8; ++sub) {
    int scale, min;
    ScaleMinK4(sub, b + 4, &scale, &min);
    const float ds = d * static_cast<float>(scale);
    const float ms = dmin * static_cast<float>(min);
    const uint8_t* qs = b + 48 + 32 * (sub / 2);
    const int shift = sub % 2 == 0 ? 0 : 4;
    for (int l = 0; l < 32; ++l) {
      const int q = ((qs[l] >> shift) & 15) | (((qh[l] >> sub) & 1) << 4);
      y[32 * sub + l] = ds * static_cast<float>(q) - ms;
    }
  }
}

// ql[128], qh[64], scales[16] (int8), d
void Q6KBlock(const uint8_t* b, float* y) {
  const float d = LoadF16(b + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* ql = b + 64 * half;
    const uint8_t* qh = b + 128 + 32 * half;
    const uint8_t* scales = b + 192 + 8 * half;
    // Quarter r of the half: ql's first or second 32 bytes (r odd), low or high
    // nibble (r >= 2), and bits 2r, 2r + 1 of qh.
    for (int r = 0; r < 4; ++r) {
      const uint8_t* low = ql + 32 * (r % 2);
      const int shift = r < 2 ? 0 : 4;
      for (int l = 0; l < 32; ++l) {
        const int q =
            ((low[l] >> shift) & 15) | (((qh[l] >> (2 * r)) & 3) << 4);
        const int scale = static_cast<int8_t>(scales[2 * r + l / 16]);
        y[128 * half + 32 * r + l] =
            d * static_cast<float>(scale) * static_cast<float>(q - 32);
      }
    }
  }
}

}  // namespace

BlocksDecoder KBlocksDecoder(GgmlType type) {
  switch (type) {
    case GgmlType::kQ2_K:
      return DecodeBlocks<Q2KBlock, 256, 84>;
    case GgmlType::kQ3_K:
      return DecodeBlocks<Q3KBlock, 256, 110>;
    case GgmlType::kQ4_K:
      return DecodeBlocks<Q4KBlock, 256, 144>;
    case GgmlType::kQ5_K:
      return DecodeBlocks<Q5KBlock, 256, 176>;
    case GgmlType::kQ6_K:
      return DecodeBlocks<Q6KBlock, 256, 210>;
    default:
      return nullptr;
  }
}

}  // namespace onegrid::quant
