#include <cmath>
#include <cstring>

#include "absl/types/span.h"
#include "kernels/base/check.h"
#include "kernels/base/float_types.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/quant/int8_activations.h"

namespace onegrid::cpu {
namespace {

float TileScale(const uint8_t* scales, int row) {
  uint16_t bits;
  std::memcpy(&bits, scales + 2 * row, sizeof(bits));
  return kernels::F16ToFloat(bits);
}

int Int4Code(const uint8_t* group, int row, int k) {
  const uint8_t pair = group[64 * (k / 8) + 4 * row + k % 4];
  return (k % 8 < 4 ? pair & 15 : pair >> 4) - 8;
}

int Int8Code(const uint8_t* group, int row, int k) {
  return group[64 * (k / 4) + 4 * row + k % 4] - 128;
}

struct Int4Format {
  static constexpr int64_t kBytes = kInt4GroupBytes;
  static constexpr int64_t kCodeBytes = 256;
  static int Code(const uint8_t* group, int row, int k) {
    return Int4Code(group, row, k);
  }
};

struct Int8Format {
  static constexpr int64_t kBytes = kInt8GroupBytes;
  static constexpr int64_t kCodeBytes = 512;
  static int Code(const uint8_t* group, int row, int k) {
    return Int8Code(group, row, k);
  }
};

static_assert(kLinearGroup == quant::kActivationGroup);
static_assert(kSmallestAmax == quant::kSmallestActivation);

void QuantizeRow(const float* x, int64_t groups, int row, int rows,
                 int8_t* codes, float* scales, int32_t* offsets) {
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t at = g * rows + row;
    int8_t* out = codes + at * kLinearGroup;
    scales[at] = quant::QuantizeInt8(
        absl::MakeConstSpan(x + g * kLinearGroup, kLinearGroup), out);
    int32_t sum = 0;
    for (int i = 0; i < kLinearGroup; ++i) sum += out[i];
    offsets[at] = -8 * sum;
  }
}

template <typename Format>
void Tile(const ActivationPanel& panel, const uint8_t* tile, float* out,
          int64_t out_stride) {
  for (int m = 0; m < panel.rows; ++m) {
    for (int r = 0; r < kTileRows; ++r) {
      float total = 0;
      for (int64_t g = 0; g < panel.groups; ++g) {
        const uint8_t* group = tile + g * Format::kBytes;
        const int64_t at = g * panel.rows + m;
        const int8_t* codes = panel.codes + at * kLinearGroup;
        int32_t dot = 0;
        for (int k = 0; k < kLinearGroup; ++k) {
          dot += codes[k] * Format::Code(group, r, k);
        }
        total = std::fma(
            static_cast<float>(dot) * TileScale(group + Format::kCodeBytes, r),
            panel.scales[at], total);
      }
      out[m * out_stride + r] = total;
    }
  }
}

template <typename Format>
void Expand(const uint8_t* tile, int64_t groups, float* w) {
  for (int64_t g = 0; g < groups; ++g) {
    const uint8_t* group = tile + g * Format::kBytes;
    for (int k = 0; k < kLinearGroup; ++k) {
      for (int r = 0; r < kTileRows; ++r) {
        w[(g * kLinearGroup + k) * kTileRows + r] =
            static_cast<float>(Format::Code(group, r, k)) *
            TileScale(group + Format::kCodeBytes, r);
      }
    }
  }
}

void F32Tile(const float* x, int64_t x_stride, int64_t rows, const float* w,
             int64_t k, bool accumulate, float* out, int64_t out_stride) {
  for (int64_t m = 0; m < rows; ++m) {
    float total[kTileRows] = {};
    for (int64_t i = 0; i < k; ++i) {
      for (int r = 0; r < kTileRows; ++r) {
        total[r] += x[m * x_stride + i] * w[i * kTileRows + r];
      }
    }
    float* to = out + m * out_stride;
    for (int r = 0; r < kTileRows; ++r) {
      to[r] = accumulate ? to[r] + total[r] : total[r];
    }
  }
}

}  // namespace

const LinearKernels kLinearKernelsPortable = {
    QuantizeRow,        Tile<Int4Format>,   Tile<Int8Format>,
    Expand<Int4Format>, Expand<Int8Format>, F32Tile,
};

const LinearKernels& LinearKernelsFor(kernels::Isa isa) {
  KERNELS_CHECK(kernels::IsaSupported(isa));
  switch (isa) {
    case kernels::Isa::kAvx512Vnni:
      return kLinearKernelsAvx512;
    case kernels::Isa::kAvx2:
      return kLinearKernelsAvx2;
    case kernels::Isa::kReference:
      break;
  }
  return kLinearKernelsPortable;
}

}  // namespace onegrid::cpu
