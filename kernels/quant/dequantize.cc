#include "kernels/quant/dequantize.h"

#include <cstdint>
#include <cstring>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/base/float_types.h"
#include "kernels/quant/ggml_types.h"

namespace onegrid::quant {
namespace {

using kernels::Bf16ToFloat;
using kernels::F16ToFloat;

uint16_t LoadU16(const uint8_t* p) {
  return static_cast<uint16_t>(p[0] | (p[1] << 8));
}

uint32_t LoadU32(const uint8_t* p) {
  return LoadU16(p) | (static_cast<uint32_t>(LoadU16(p + 2)) << 16);
}

float LoadF16(const uint8_t* p) { return F16ToFloat(LoadU16(p)); }

// One function per type: decodes one block from b to y. Layouts: ggml-common.h.

void F32Block(const uint8_t* b, float* y) { std::memcpy(y, b, sizeof(float)); }
void F16Block(const uint8_t* b, float* y) { *y = LoadF16(b); }
void Bf16Block(const uint8_t* b, float* y) { *y = Bf16ToFloat(LoadU16(b)); }

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

void Q2_0Block(const uint8_t* b, float* y) {  // d, qs[16]
  const float d = LoadF16(b);
  for (int j = 0; j < 64; ++j) {
    y[j] = static_cast<float>(((b[2 + j / 4] >> (2 * (j % 4))) & 3) - 1) * d;
  }
}

template <void (*kDecodeBlock)(const uint8_t*, float*)>
void DecodeBlocks(const GgmlTypeTraits& traits, const uint8_t* src,
                  absl::Span<float> dst) {
  const int64_t n = static_cast<int64_t>(dst.size()) / traits.block_elements;
  for (int64_t i = 0; i < n; ++i) {
    kDecodeBlock(src + i * traits.block_bytes,
                 dst.data() + i * traits.block_elements);
  }
}

}  // namespace

absl::Status Dequantize(GgmlType type, absl::Span<const uint8_t> src,
                        absl::Span<float> dst) {
  absl::StatusOr<GgmlTypeTraits> traits = TraitsOf(type);
  if (!traits.ok()) return traits.status();
  absl::StatusOr<int64_t> bytes =
      RowBytes(type, static_cast<int64_t>(dst.size()));
  if (!bytes.ok()) return bytes.status();
  if (static_cast<int64_t>(src.size()) != *bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(traits->name, ": ", dst.size(), " elements take ", *bytes,
                     " bytes, found ", src.size()));
  }
  const auto decode = [&]() -> decltype(&DecodeBlocks<F32Block>) {
    switch (type) {
      case GgmlType::kF32:
        return DecodeBlocks<F32Block>;
      case GgmlType::kF16:
        return DecodeBlocks<F16Block>;
      case GgmlType::kBF16:
        return DecodeBlocks<Bf16Block>;
      case GgmlType::kQ4_0:
        return DecodeBlocks<Q4_0Block>;
      case GgmlType::kQ4_1:
        return DecodeBlocks<Q4_1Block>;
      case GgmlType::kQ5_0:
        return DecodeBlocks<Q5_0Block>;
      case GgmlType::kQ5_1:
        return DecodeBlocks<Q5_1Block>;
      case GgmlType::kQ8_0:
        return DecodeBlocks<Q8_0Block>;
      case GgmlType::kQ4_K:
        return DecodeBlocks<Q4KBlock>;
      case GgmlType::kQ5_K:
        return DecodeBlocks<Q5KBlock>;
      case GgmlType::kQ6_K:
        return DecodeBlocks<Q6KBlock>;
      case GgmlType::kQ2_0:
        return DecodeBlocks<Q2_0Block>;
    }
    return nullptr;  // TraitsOf has refused every other value.
  }();
  decode(*traits, src.data(), dst);
  return absl::OkStatus();
}

}  // namespace onegrid::quant
