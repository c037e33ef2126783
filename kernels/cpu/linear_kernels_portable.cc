#include <cmath>
#include <cstring>

#include "absl/types/span.h"
#include "kernels/base/check.h"
#include "kernels/base/float_types.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/quant/int8_activations.h"

namespace onegrid::cpu {
namespace {

// Where group g of a tile lies.
template <typename Format>
TileBytes PlaceOf(TileBytes tile, int64_t g) {
  const int64_t place = g / Format::kPlaceGroups;
  return {tile.at + place * Format::kPlaceBytes,
          Format::kLowerBytes == 0 ? nullptr
                                   : tile.lower + place * Format::kLowerBytes};
}

// Element k of group g of row `row`.
template <typename Format>
int CodeIn(TileBytes group, int64_t g, int row, int k) {
  if constexpr (Format::kLowerBytes != 0) {
    const int64_t at = 64 * (k / 8) + 4 * row + k % 4;
    const int shift = k % 8 < 4 ? 0 : 4;
    return (group.at[at] >> shift & 15) * 16 + (group.lower[at] >> shift & 15) -
           Format::kBias;
  }
  const uint8_t* place = group.at;
  constexpr int kBits = Format::kBits, kFields = 8 / kBits;
  k += static_cast<int>(g % Format::kPlaceGroups) * kLinearGroup;
  const uint8_t byte = place[64 * (k / (4 * kFields)) + 4 * row + k % 4];
  const int field = k / 4 % kFields;
  return ((byte >> (kBits * field)) & ((1 << kBits) - 1)) * Format::kStep -
         Format::kBias;
}

// Of row `row` in a place of the format: the scales are its end.
template <typename Format>
float ScaleIn(TileBytes place, int row) {
  uint16_t bits;
  std::memcpy(&bits, place.at + Format::kPlaceBytes - 2 * kTileRows + 2 * row,
              sizeof(bits));
  return kernels::F16ToFloat(bits);
}

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

// Where element k of a group lies among codes of 16 bits.
int WidePlace(int k) {
  constexpr int kOrder[4] = {0, 2, 1, 3};
  return k / 4 * 4 + kOrder[k % 4];
}

void QuantizeRowWide(const float* x, int64_t groups, int row, int rows,
                     int16_t* codes, float* scales, int32_t* offsets) {
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t at = g * rows + row;
    int16_t in_order[kLinearGroup];
    scales[at] = quant::QuantizeInt16(
        absl::MakeConstSpan(x + g * kLinearGroup, kLinearGroup), in_order);
    int32_t sum = 0;
    for (int k = 0; k < kLinearGroup; ++k) {
      codes[at * kLinearGroup + WidePlace(k)] = in_order[k];
      sum += in_order[k];
    }
    offsets[at] = -8 * sum;
  }
}

// The codes of one group of a row in 16 bits.
void LoadCodes(const ActivationPanel& panel, int64_t at, int16_t* codes) {
  at *= kLinearGroup;
  for (int k = 0; k < kLinearGroup; ++k) {
    codes[k] = panel.codes != nullptr ? panel.codes[at + k]
                                      : panel.wide_codes[at + WidePlace(k)];
  }
}

template <typename Format>
void PanelRows(const ActivationPanel& panel, const TileBytes& tile, float* out,
               int64_t out_stride) {
  KERNELS_CHECK(panel.rows <= kPanelRows);
  float total[kPanelRows][kTileRows] = {};
  for (int64_t g = 0; g < panel.groups; ++g) {
    // Of 16 bits, so that compilers multiply and add pairs in one instruction.
    int16_t weights[kTileRows][kLinearGroup];
    float weight_scales[kTileRows];
    const TileBytes place = PlaceOf<Format>(tile, g);
    for (int r = 0; r < kTileRows; ++r) {
      weight_scales[r] = ScaleIn<Format>(place, r);
      for (int k = 0; k < kLinearGroup; ++k) {
        weights[r][k] = static_cast<int16_t>(CodeIn<Format>(place, g, r, k));
      }
    }
    for (int m = 0; m < panel.rows; ++m) {
      const int64_t at = g * panel.rows + m;
      int16_t codes[kLinearGroup];
      LoadCodes(panel, at, codes);
      for (int r = 0; r < kTileRows; ++r) {
        int32_t dot = 0;
        for (int k = 0; k < kLinearGroup; ++k) dot += codes[k] * weights[r][k];
        total[m][r] = std::fma(static_cast<float>(dot) * weight_scales[r],
                               panel.scales[at], total[m][r]);
      }
    }
  }
  for (int m = 0; m < panel.rows; ++m) {
    std::memcpy(out + m * out_stride, total[m], sizeof(total[m]));
  }
}

template <typename Format>
void Tile(const ActivationPanel* panels, int64_t count, const TileBytes& tile,
          float* out, int64_t out_stride) {
  for (int64_t p = 0; p < count; ++p) {
    PanelRows<Format>(panels[p], tile, out, out_stride);
    out += panels[p].rows * out_stride;
  }
}

template <typename Format>
void Expand(const uint8_t* tile, int64_t groups, float* w) {
  for (int64_t g = 0; g < groups; ++g) {
    const TileBytes place = PlaceOf<Format>({tile}, g);
    for (int k = 0; k < kLinearGroup; ++k) {
      for (int r = 0; r < kTileRows; ++r) {
        w[(g * kLinearGroup + k) * kTileRows + r] =
            static_cast<float>(CodeIn<Format>(place, g, r, k)) *
            ScaleIn<Format>(place, r);
      }
    }
  }
}

void Bf16Expand(const uint8_t* tile, int64_t groups, float* w) {
  for (int64_t i = 0; i < groups * kLinearGroup * kTileRows; ++i) {
    uint16_t bits;
    std::memcpy(&bits, tile + 2 * i, sizeof(bits));
    w[i] = kernels::Bf16ToFloat(bits);
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
    kPanelRows,
    /*tiles_most=*/1,
    /*streams=*/nullptr,
    kPassBytes,
    WideOrder::k0213,
    QuantizeRow,
    QuantizeRowWide,
    Tile<Int2Layout>,
    Tile<Int4Layout>,
    Tile<Int8Layout>,
    Tile<SplitInt8Layout>,
    Tile<OddInt4Layout>,
    Tile<Int2Layout>,
    Tile<Int4Layout>,
    Tile<Int8Layout>,
    Tile<SplitInt8Layout>,
    nullptr,
    nullptr,
};

const FloatKernels kFloatKernelsPortable = {
    Expand<Int2Layout>,
    Expand<Int4Layout>,
    Expand<Int8Layout>,
    Bf16Expand,
    F32Tile,
};

const LinearKernels& LinearKernelsFor(kernels::Isa isa, int64_t rows,
                                      CodeBits bits) {
  KERNELS_CHECK(kernels::IsaSupported(isa));
  switch (isa) {
    case kernels::Isa::kAmx:
      return rows < (bits == CodeBits::k8 ? kAmxRows : kAmxWideRows)
                 ? kLinearKernelsAvx512
                 : kLinearKernelsAmx;
    case kernels::Isa::kAvx512Vnni:
      return kernels::UsesZenKernels(isa) ? kLinearKernelsZen
                                          : kLinearKernelsAvx512;
    case kernels::Isa::kAvxVnni:
      return kLinearKernelsAvxVnni;
    case kernels::Isa::kAvx2:
      return kLinearKernelsAvx2;
    case kernels::Isa::kReference:
      break;
  }
  return kLinearKernelsPortable;
}

const FloatKernels& FloatKernelsFor(kernels::Isa isa) {
  KERNELS_CHECK(kernels::IsaSupported(isa));
  switch (isa) {
    case kernels::Isa::kAmx:
    case kernels::Isa::kAvx512Vnni:
      return kFloatKernelsAvx512;
    case kernels::Isa::kAvxVnni:
    case kernels::Isa::kAvx2:
      return kFloatKernelsAvx2;
    case kernels::Isa::kReference:
      break;
  }
  return kFloatKernelsPortable;
}

}  // namespace onegrid::cpu
