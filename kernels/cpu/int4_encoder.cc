#include "kernels/cpu/int4_encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/base/clones.h"
#include "kernels/base/float_types.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/quant/grid.h"

namespace onegrid::cpu {
namespace {

constexpr int64_t kGroupFloats = kLinearGroup * kTileRows;
// Of the largest value of a group, what the largest code stands for; that which
// leaves least is taken.
constexpr float kShares[] = {1.0f, 0.92f, 0.85f, 0.77f};

// A scale, exact in f16, with which the largest code stands for about `most`.
float ScaleFor(float most) {
  const float scale = std::min(most / 7.5f, quant::kMaxScale);
  return std::max(kernels::F16ToFloat(kernels::FloatToF16(scale)),
                  quant::kMinScale);
}

// What is left of 16 columns of 32 values in steps of `scales`, squared.
ONEGRID_CLONES void SquaresLeft(const float* values, const float* scales,
                                float* squares) {
  float inverses[kTileRows];
  for (int r = 0; r < kTileRows; ++r) {
    inverses[r] = 1 / scales[r];
    squares[r] = 0;
  }
  for (int k = 0; k < kLinearGroup; ++k) {
    for (int r = 0; r < kTileRows; ++r) {
      const float value = values[k * kTileRows + r];
      const float rest =
          value - quant::RoundStepsF32(value * inverses[r], quant::kInt4G32) *
                      scales[r];
      squares[r] += rest * rest;
    }
  }
}

// Takes codes times scales from the values, and adds the squares of both sides
// up. codes: each plus 8.
ONEGRID_CLONES void TakeCodes(const float* scales, float* values,
                              uint8_t* codes, float* squares_taken,
                              float* squares_left) {
  float inverses[kTileRows];
  for (int r = 0; r < kTileRows; ++r) inverses[r] = 1 / scales[r];
  for (int k = 0; k < kLinearGroup; ++k) {
    for (int r = 0; r < kTileRows; ++r) {
      const float value = values[k * kTileRows + r];
      const float code =
          quant::RoundStepsF32(value * inverses[r], quant::kInt4G32);
      const float taken = code * scales[r];
      const float rest = value - taken;
      codes[k * kTileRows + r] =
          static_cast<uint8_t>(static_cast<int>(code) + Int4Layout::kBias);
      values[k * kTileRows + r] = rest;
      squares_taken[r] += taken * taken;
      squares_left[r] += rest * rest;
    }
  }
}

}  // namespace

void EncodeInt4Group(float* values, uint8_t* place, float* squares_taken,
                     float* squares_left) {
  float largest[kTileRows] = {};
  for (int64_t i = 0; i < kGroupFloats; ++i) {
    float& most = largest[i % kTileRows];
    most = std::max(most, std::abs(values[i]));
  }
  float scales[kTileRows], least[kTileRows];
  std::fill(least, least + kTileRows, std::numeric_limits<float>::infinity());
  for (const float share : kShares) {
    float tried[kTileRows], squares[kTileRows];
    for (int r = 0; r < kTileRows; ++r) {
      tried[r] = ScaleFor(largest[r] * share);
    }
    SquaresLeft(values, tried, squares);
    for (int r = 0; r < kTileRows; ++r) {
      if (!(squares[r] < least[r]) && share != kShares[0]) continue;
      least[r] = squares[r];
      scales[r] = tried[r];
    }
  }
  uint8_t codes[kGroupFloats];
  TakeCodes(scales, values, codes, squares_taken, squares_left);
  for (int j = 0; j < 4; ++j) {
    for (int r = 0; r < kTileRows; ++r) {
      for (int b = 0; b < 4; ++b) {
        const int low = codes[(8 * j + b) * kTileRows + r];
        const int high = codes[(8 * j + 4 + b) * kTileRows + r];
        place[64 * j + 4 * r + b] = static_cast<uint8_t>(low | high << 4);
      }
    }
  }
  auto* to = place + kInt4GroupBytes - 2 * kTileRows;
  for (int r = 0; r < kTileRows; ++r) {
    const uint16_t bits = kernels::FloatToF16(scales[r]);
    std::memcpy(to + 2 * r, &bits, sizeof(bits));
  }
}

}  // namespace onegrid::cpu
