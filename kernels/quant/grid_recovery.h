#ifndef KERNELS_QUANT_GRID_RECOVERY_H_
#define KERNELS_QUANT_GRID_RECOVERY_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"

// Finds the 4-bit lattice that weights were trained on when only their bf16
// values are left: "unquantized" checkpoints of quantization-aware training
// hold bf16(code * step), code -8..7, one step for each 32 inputs. Rounding
// such a file to 4 bits afresh (amax / 8, say) puts most groups on a different
// lattice and loses what the training gained.
namespace onegrid::quant {

// One group: bf16(codes[i] * step) is weight i, for every i.
struct Lattice {
  float step;  // not zero
  std::array<int8_t, kGroup> codes;
};

// The lattice of 32 weights, or none if none explains every weight. All steps
// amax / k, k = 1..8, are tried, each with the whole interval that bf16
// rounding leaves it. Of several lattices (codes 2, -4, 6 are also 1, -2, 3):
// - one whose code * step are the weights without rounding goes before others;
// - then one with a dual-exact step;
// - then one with a positive step: a negative one is the answer only if +amax
//   must be code -8;
// - then the one with the largest extreme code.
// Of the steps in the interval: a dual-exact one, the nearest to the least
// squares fit; if there is none, that fit itself. So a step of 8 significant
// bits comes back as it was, up to lattices that give the same weights.
// None for 32 zeros, a value that is not finite or not a bf16, and more or less
// than 32 weights.
std::optional<Lattice> FindLattice(absl::Span<const float> group);

// What became of the groups: on_grid + zero + fallback are all of them.
struct RecoveryCounts {
  int64_t on_grid = 0;   // on a lattice, codes kept
  int64_t zero = 0;      // 32 zeros
  int64_t fallback = 0;  // encoded by EncodeMatrix's least squares
  // Of on_grid: the step was not dual-exact and moved to the nearest that is,
  // by 0.2 % on average and 0.4 % at most.
  int64_t snapped = 0;
  // Of fallback: on a lattice that int4_g32 cannot hold, a negative step with a
  // code -8 (as llama.cpp's Q4_0 makes them) or one outside the scales' range.
  int64_t unheld = 0;
};

struct GridRecovery {
  GridMatrix matrix;  // int4_g32, every scale dual-exact
  RecoveryCounts counts;
};

// The matrix w [rows, cols], row-major, on the lattices of its groups.
// InvalidArgument: as EncodeMatrix (sizes, a value that is not finite or too
// large). 10 million weights per second or more when they are on a lattice,
// EncodeMatrix's speed when they are not.
absl::StatusOr<GridRecovery> RecoverMatrix(absl::Span<const float> w,
                                           int64_t rows, int64_t cols);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_GRID_RECOVERY_H_
