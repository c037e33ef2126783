#include "kernels/quant/int4_g32.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/base/check.h"
#include "kernels/base/float_types.h"
#include "kernels/quant/shape_check.h"

namespace onegrid::quant {
namespace {

// The first candidate scales are amax / k for k in steps of a quarter: with
// codes -8..7 the best scale of a bell-shaped or long-tailed group nearly
// always puts its extreme 5 to 9 steps out. Squared error over the best
// dual-exact scale, on normal weights: +0.13 %; with half steps +0.7 %, for
// half the time.
constexpr float kFirstDivisor = 5.0f;
constexpr float kLastDivisor = 9.0f;
constexpr float kDivisorStep = 0.25f;
constexpr int kRefinements = 2;

// Sums over one group at one scale, codes by THE rounding rule.
struct GroupFit {
  float error;    // sum (w - code * scale)^2
  float w_dot_c;  // sum w * code
  float c_dot_c;  // sum code^2
};

GroupFit FitGroup(const float* w, float scale) {
  // Independent lanes, so that the compiler may use vector registers without
  // changing the order of the sums.
  constexpr int kLanes = 8;
  float error[kLanes] = {}, w_dot_c[kLanes] = {}, c_dot_c[kLanes] = {};
  for (int i = 0; i < kGroup; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float value = w[i + l];
      const float code = RoundToCodeF32(value, scale);
      const float miss = value - code * scale;
      error[l] += miss * miss;
      w_dot_c[l] += value * code;
      c_dot_c[l] += code * code;
    }
  }
  GroupFit fit = {0, 0, 0};
  for (int l = 0; l < kLanes; ++l) {
    fit.error += error[l];
    fit.w_dot_c += w_dot_c[l];
    fit.c_dot_c += c_dot_c[l];
  }
  return fit;
}

bool LiesOnGrid(const float* w, float scale) {
  for (int i = 0; i < kGroup; ++i) {
    if (RoundToCodeF32(w[i], scale) * scale != w[i]) return false;
  }
  return true;
}

// The dual-exact scale of one group; amax = max |w| > 0.
float ChooseScale(const float* w, float amax) {
  for (int extreme = 8; extreme >= 1; --extreme) {
    const float scale = amax / static_cast<float>(extreme);
    if (IsDualExact(scale) && LiesOnGrid(w, scale)) return scale;
  }
  float best_scale = SnapScale(amax / 8.0f);
  GroupFit best = FitGroup(w, best_scale);
  const auto try_scale = [&](float scale) {
    const GroupFit fit = FitGroup(w, scale);
    if (fit.error >= best.error) return false;
    best = fit;
    best_scale = scale;
    return true;
  };
  for (float k = kFirstDivisor; k <= kLastDivisor; k += kDivisorStep) {
    try_scale(SnapScale(amax / k));
  }
  for (int i = 0; i < kRefinements && best.c_dot_c > 0; ++i) {
    if (!try_scale(SnapScale(best.w_dot_c / best.c_dot_c))) break;
  }
  return best_scale;
}

}  // namespace

float SnapScale(float s) {
  if (!(s > kMinScale)) return kMinScale;
  if (s >= kMaxScale) return kMaxScale;
  // Rounding to bf16 keeps 8 significant bits; every such value in this range
  // is a normal f16.
  return kernels::Bf16ToFloat(kernels::FloatToBf16(s));
}

bool IsDualExact(float s) { return SnapScale(s) == s; }

absl::Status ValidateInt4(const Int4Matrix& matrix) {
  absl::Status status =
      CheckMatrixSize("int4_g32 codes", matrix.rows, matrix.cols, kGroup,
                      kGroup, static_cast<int64_t>(matrix.codes.size()));
  if (!status.ok()) return status;
  status = CheckMatrixSize("int4_g32 scales", matrix.rows, matrix.cols, kGroup,
                           1, static_cast<int64_t>(matrix.scales.size()));
  if (!status.ok()) return status;
  for (size_t i = 0; i < matrix.codes.size(); ++i) {
    if (matrix.codes[i] < kMinCode || matrix.codes[i] > kMaxCode) {
      return absl::InvalidArgumentError(
          absl::StrCat("int4_g32: code ", int{matrix.codes[i]}, " at element ",
                       i, " is outside -8..7"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Int4Matrix> EncodeInt4G32(absl::Span<const float> w,
                                         int64_t rows, int64_t cols) {
  absl::Status status = CheckMatrixSize("int4_g32 weights", rows, cols, kGroup,
                                        kGroup, static_cast<int64_t>(w.size()));
  if (!status.ok()) return status;
  Int4Matrix out;
  out.rows = rows;
  out.cols = cols;
  out.codes.resize(w.size());
  out.scales.resize(w.size() / kGroup);
  for (size_t g = 0; g < out.scales.size(); ++g) {
    const float* group = w.data() + g * kGroup;
    float amax = 0.0f;
    bool finite = true;
    for (int i = 0; i < kGroup; ++i) {
      const float magnitude = std::fabs(group[i]);
      amax = magnitude > amax ? magnitude : amax;
      finite = finite && std::isfinite(group[i]);
    }
    if (!finite || amax > 8.0f * kMaxScale) {
      return absl::InvalidArgumentError(absl::StrCat(
          "int4_g32: a weight in elements ", g * kGroup, "..",
          g * kGroup + kGroup - 1, " is ",
          finite ? "larger than the grid can hold" : "not finite"));
    }
    const float scale = amax > 0.0f ? ChooseScale(group, amax) : kMinScale;
    out.scales[g] = scale;
    for (int i = 0; i < kGroup; ++i) {
      out.codes[g * kGroup + i] = RoundToCode(group[i], scale);
    }
  }
  return out;
}

void DequantizeInt4(const Int4Matrix& matrix, absl::Span<float> out) {
  KERNELS_CHECK(out.size() == matrix.codes.size());
  KERNELS_CHECK(matrix.codes.size() == matrix.scales.size() * kGroup);
  for (size_t g = 0; g < matrix.scales.size(); ++g) {
    const int8_t* codes = matrix.codes.data() + g * kGroup;
    float* y = out.data() + g * kGroup;
    for (int i = 0; i < kGroup; ++i) {
      y[i] = static_cast<float>(codes[i]) * matrix.scales[g];
    }
  }
}

}  // namespace onegrid::quant
