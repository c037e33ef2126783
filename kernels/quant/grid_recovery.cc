#include "kernels/quant/grid_recovery.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/base/float_types.h"
#include "kernels/quant/grid.h"
#include "kernels/quant/shape_check.h"

namespace onegrid::quant {
namespace {

using kernels::Bf16ToFloat;
using kernels::FloatToBf16;

constexpr int kExtreme = 8;

// A weight that is a bf16, and the magnitudes that round to it.
struct Weight {
  double value;
  double low;
  double high;
};

using Group = std::array<Weight, kGroup>;

// False if a value is not a finite bf16.
bool Intervals(absl::Span<const float> w, Group& group) {
  for (int i = 0; i < kGroup; ++i) {
    const float magnitude = std::fabs(w[i]);
    const uint16_t bits = FloatToBf16(magnitude);
    if (!std::isfinite(w[i]) || Bf16ToFloat(bits) != magnitude) return false;
    group[i] = {w[i], 0, 0};
    if (magnitude == 0) continue;
    const double below = Bf16ToFloat(static_cast<uint16_t>(bits - 1));
    const double above = Bf16ToFloat(static_cast<uint16_t>(bits + 1));
    group[i].low = (magnitude + below) / 2;
    group[i].high = (magnitude + above) / 2;
  }
  return true;
}

bool Reproduces(absl::Span<const float> w, const Lattice& lattice) {
  for (int i = 0; i < kGroup; ++i) {
    const float value = static_cast<float>(lattice.codes[i]) * lattice.step;
    if (Bf16ToFloat(FloatToBf16(value)) != w[i]) return false;
  }
  return true;
}

// Codes and the positive steps that explain the weights, if the largest weight
// is `extreme` steps out.
struct Fit {
  std::array<int, kGroup> codes;  // -8..8
  double low;
  double high;
  double least_squares;
};

bool FitSteps(const Group& group, double amax, int extreme, Fit& fit) {
  const double step = amax / extreme;
  fit.low = 0;
  fit.high = INFINITY;
  double w_dot_c = 0, c_dot_c = 0;
  for (int i = 0; i < kGroup; ++i) {
    const Weight& w = group[i];
    const double code = std::nearbyint(w.value / step);
    fit.codes[i] = static_cast<int>(code);
    if (w.value == 0) continue;
    if (code == 0) return false;
    fit.low = std::max(fit.low, w.low / std::fabs(code));
    fit.high = std::min(fit.high, w.high / std::fabs(code));
    if (fit.low > fit.high) return false;
    w_dot_c += w.value * code;
    c_dot_c += code * code;
  }
  fit.least_squares = std::clamp(w_dot_c / c_dot_c, fit.low, fit.high);
  return true;
}

// The step that the fit should have, its magnitude and then its sign.
std::optional<Lattice> ChooseStep(absl::Span<const float> w, const Fit& fit,
                                  int sign) {
  const auto middle = static_cast<float>((fit.low + fit.high) / 2);
  const auto fitted = static_cast<float>(fit.least_squares);
  const uint16_t bits = FloatToBf16(fitted);
  const float nearest = Bf16ToFloat(bits);
  const float other = Bf16ToFloat(
      static_cast<uint16_t>(nearest < fitted ? bits + 1 : bits - 1));
  Lattice lattice;
  for (int i = 0; i < kGroup; ++i) {
    lattice.codes[i] = static_cast<int8_t>(sign * fit.codes[i]);
  }
  for (const float step : {nearest, other, fitted, middle}) {
    lattice.step = static_cast<float>(sign) * step;
    if (Reproduces(w, lattice)) return lattice;
  }
  return std::nullopt;
}

bool HasCode(const Fit& fit, int code) {
  return std::find(fit.codes.begin(), fit.codes.end(), code) != fit.codes.end();
}

// How good an answer the lattice is: 3 if the grid holds the weights as they
// are, 2 if it holds the lattice, 1 if the step has to move.
int Rank(absl::Span<const float> w, const Lattice& lattice) {
  if (!IsDualExact(lattice.step)) return 1;
  for (int i = 0; i < kGroup; ++i) {
    if (static_cast<float>(lattice.codes[i]) * lattice.step != w[i]) return 2;
  }
  return 3;
}

// The scale at which int4_g32 holds the lattice's codes, or 0.
float HeldScale(const Lattice& lattice) {
  const float scale = SnapScale(lattice.step);
  // Rounding to 8 bits moves a step by 2^-8 at most; the ends of the range and
  // a negative step by more.
  return std::fabs(scale - lattice.step) <= 0x1p-8f * lattice.step ? scale : 0;
}

bool AllZero(absl::Span<const float> w) {
  return std::all_of(w.begin(), w.end(), [](float v) { return v == 0; });
}

// Puts one group on a grid and counts it.
absl::Status RecoverGroup(absl::Span<const float> w, int8_t* codes,
                          float& scale, RecoveryCounts& counts) {
  if (AllZero(w)) {
    scale = kMinScale;
    ++counts.zero;
    return absl::OkStatus();
  }
  const std::optional<Lattice> lattice = FindLattice(w);
  if (lattice.has_value()) {
    scale = HeldScale(*lattice);
    if (scale > 0) {
      std::copy(lattice->codes.begin(), lattice->codes.end(), codes);
      ++counts.on_grid;
      counts.snapped += scale != lattice->step ? 1 : 0;
      return absl::OkStatus();
    }
    ++counts.unheld;
  }
  absl::StatusOr<GridMatrix> encoded = EncodeMatrix(w, 1, kGroup, kInt4G32);
  if (!encoded.ok()) return encoded.status();
  std::copy(encoded->codes.begin(), encoded->codes.end(), codes);
  scale = encoded->scales[0];
  ++counts.fallback;
  return absl::OkStatus();
}

}  // namespace

std::optional<Lattice> FindLattice(absl::Span<const float> w) {
  Group group;
  if (w.size() != kGroup || !Intervals(w, group)) return std::nullopt;
  double amax = 0;
  for (const Weight& weight : group) {
    amax = std::max(amax, std::fabs(weight.value));
  }
  if (amax == 0) return std::nullopt;
  std::optional<Lattice> best;
  int best_rank = 0;
  Fit fit;
  for (int extreme = kExtreme; extreme >= 1; --extreme) {
    if (!FitSteps(group, amax, extreme, fit) || HasCode(fit, kExtreme)) {
      continue;
    }
    const std::optional<Lattice> lattice = ChooseStep(w, fit, 1);
    if (!lattice.has_value()) continue;
    const int rank = Rank(w, *lattice);
    if (rank > best_rank) {
      best = lattice;
      best_rank = rank;
    }
  }
  if (best.has_value()) return best;
  if (FitSteps(group, amax, kExtreme, fit) && !HasCode(fit, -kExtreme)) {
    return ChooseStep(w, fit, -1);
  }
  return std::nullopt;
}

absl::StatusOr<GridRecovery> RecoverMatrix(absl::Span<const float> w,
                                           int64_t rows, int64_t cols) {
  absl::Status status = CheckMatrixSize("int4_g32 weights", rows, cols, kGroup,
                                        kGroup, static_cast<int64_t>(w.size()));
  if (!status.ok()) return status;
  GridRecovery out;
  out.matrix.rows = rows;
  out.matrix.cols = cols;
  out.matrix.codes.resize(w.size());
  out.matrix.scales.resize(w.size() / kGroup);
  for (size_t g = 0; g < out.matrix.scales.size(); ++g) {
    status = RecoverGroup(w.subspan(g * kGroup, kGroup),
                          out.matrix.codes.data() + g * kGroup,
                          out.matrix.scales[g], out.counts);
    if (!status.ok()) {
      const int64_t groups = cols / kGroup;
      return absl::InvalidArgumentError(absl::StrCat(
          "row ", g / groups, ", group ", g % groups, ": ", status.message()));
    }
  }
  return out;
}

}  // namespace onegrid::quant
