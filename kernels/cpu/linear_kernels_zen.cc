// Compiled for AVX-512 F, BW, VL and VNNI: include nothing that defines inline
// functions outside the intrinsics, and keep everything else file-local.
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/linear_kernels_avx512_inl.h"

namespace onegrid::cpu {
namespace {

// AMD's processors fetch what follows what is read by themselves, and read one
// place faster than several: on two Zen 5 threads one row of activations reads
// weights as fast as a loop that only loads them, with four places 0.85 to 0.95
// of that; 8 rows take 1.1 times as long with two.
int OneStream(int) { return 1; }

// Tiles in a cache are taken in pairs with at most so many rows at a time, and
// then the other rows, if there are kPairRows at least. Zen 5 multiplies two
// vectors in a cycle and loads two: a product with a code in memory takes as
// much of one as of the other, and a group has more to load. In pairs 12 rows
// take 60 to 63 cycles for a group of a tile instead of 68; 48 are its dot
// products and 12, on the same ports, its scaling. With weights in memory 12
// rows take 1.08 times as long in pairs.
constexpr int kMostRows = 6, kPairRows = 5;

struct OneByOne {
  static constexpr int kTilesMost = 4;

  template <typename Format, typename Code, int kRows>
  static void Multiply(const ActivationPanel& panel, const TileBytes& tiles,
                       Turn turn, float* out, int64_t out_stride) {
    int64_t t = 0;
    if constexpr (kRows >= kPairRows) {
      for (; turn.count > 1 && t + 2 <= tiles.count; t += 2) {
        TimesPair<Format, Code, kRows>(panel, TileAt(tiles, t),
                                       LaterOf<Format>(panel, tiles, t, turn),
                                       out + t * tiles.columns, out_stride);
      }
    }
    for (; t < tiles.count; ++t) {
      RowsTimesTiles<Format, Code, kRows, 1, false>(
          panel, TileAt(tiles, t), out + t * tiles.columns, out_stride);
    }
  }

 private:
  // A panel's part of the pair of tiles that lies as far behind all of these as
  // tile t behind the first.
  template <typename Format>
  static LaterLines LaterOf(const ActivationPanel& panel,
                            const TileBytes& tiles, int64_t t, Turn turn) {
    constexpr int64_t kLines =
        (2 * Format::kPlaceBytes / Format::kPlaceGroups + 63) / 64;
    const int64_t of_group = (kLines - 1) / turn.count + 1;
    return {tiles.at + (tiles.count + t) * tiles.stride +
                64 * turn.panel * panel.groups * of_group,
            static_cast<int>(of_group)};
  }

  template <typename Format, typename Code, int kRows>
  static void TimesPair(const ActivationPanel& panel, const TileBytes& pair,
                        const LaterLines& later, float* out,
                        int64_t out_stride) {
    constexpr int kFirst = kRows <= kMostRows ? kRows : (kRows + 1) / 2;
    constexpr LaterLines kNone = {nullptr, 0};
    RowsTimesPair<Format, Code, 0, kFirst>(
        panel, pair, kFirst == kRows ? later : kNone, out, out_stride);
    if constexpr (kFirst < kRows) {
      RowsTimesPair<Format, Code, kFirst, kRows - kFirst>(panel, pair, later,
                                                          out, out_stride);
    }
  }
};

}  // namespace

constinit const LinearKernels kLinearKernelsZen =
    KernelsOf<OneByOne>(OneStream);

}  // namespace onegrid::cpu
