// Compiled for AVX-512 F, BW, VL and VNNI: include nothing that defines inline
// functions outside the intrinsics, and keep everything else file-local.
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/linear_kernels_avx512_inl.h"

namespace onegrid::cpu {
namespace {

// Tiles that kRows rows of activations are multiplied with at once: memory
// gives more to several readers of bytes that follow each other than to one.
// Measured for one row on Granite Rapids, with matrices in memory and in the L3
// cache: 2, 6 and 8 are slower. Their sums are in registers.
constexpr int kMostStreams = 4;
constexpr int AtOnce(int rows) {
  return rows <= 4 ? kMostStreams : rows <= 8 ? 2 : 1;
}

int StreamsOf(int rows) { return AtOnce(rows) > 1 ? AtOnce(rows) : 0; }

struct SideBySide {
  static constexpr int kTilesMost = kMostStreams;

  template <typename Format, typename Code, int kRows>
  static void Multiply(const ActivationPanel& panel, const TileBytes& tiles,
                       Turn, float* out, int64_t out_stride) {
    constexpr int kAtOnce = AtOnce(kRows);
    // More rows take longer to multiply than their weights to arrive.
    constexpr bool kFurther = kAtOnce == kMostStreams;
    int64_t t = 0;
    for (; t + kAtOnce <= tiles.count; t += kAtOnce) {
      RowsTimesTiles<Format, Code, kRows, kAtOnce, kFurther>(
          panel, TileAt(tiles, t), out + t * tiles.columns, out_stride);
    }
    if constexpr (kAtOnce > 1) {
      for (; t < tiles.count; ++t) {
        RowsTimesTiles<Format, Code, kRows, 1, false>(
            panel, TileAt(tiles, t), out + t * tiles.columns, out_stride);
      }
    }
  }
};

}  // namespace

constinit const LinearKernels kLinearKernelsAvx512 =
    KernelsOf<SideBySide>(StreamsOf);

}  // namespace onegrid::cpu
