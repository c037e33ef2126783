#ifndef KERNELS_QUANT_EXACT_GRID_H_
#define KERNELS_QUANT_EXACT_GRID_H_

#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "kernels/quant/grid.h"

// Finds the codes and scales again when only their products are left, in f32: a
// compressed-tensors export holds the embedding like that.
namespace onegrid::quant {

// The matrix [rows, cols] whose values are exactly w, on the first of int2_g64,
// int4_g32 and int8_g32 that has one with scales that f16 holds; none if no
// grid has. Scales are positive. Of several in a group, the one that its maker
// most likely wrote: on int8_g32 the one with a code 127, as ggml's rule has
// it; else that with a dual-exact scale, as this project's grids have, and of
// those the one with the largest code. So a group comes back as it was unless
// its codes leave half of their range unused or are one magnitude (-7 at a
// scale of 8 is also -8 at 7), and else as the same values. A group of zeros
// gets kMinScale, or on int8_g32 0 as ggml's rule does. None also for sizes
// that do not fit, and for zeros only. Stops at the first group that is on no
// grid.
std::optional<GridMatrix> FindExactGrid(absl::Span<const float> w, int64_t rows,
                                        int64_t cols);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_EXACT_GRID_H_
