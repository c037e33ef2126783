// Run on AMX only: include nothing that defines inline functions that the
// linker could pick for other files.
#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/peak_kernels.h"

namespace onegrid::cpu {
namespace {

constexpr int kRows = 16;
constexpr int kBytes = 64;

void Int8Dots(int64_t rounds) {
  TileConfig config;
  for (int i = 0; i < 6; ++i) config.Set(i, kRows, kBytes);
  config.Load();
  for (int64_t round = 0; round < rounds; ++round) {
    // Four sums hide the latency of a product.
    TileDotSigned<0, 4, 5>();
    TileDotSigned<1, 4, 5>();
    TileDotSigned<2, 4, 5>();
    TileDotSigned<3, 4, 5>();
  }
  TileRelease();
}

}  // namespace

const PeakKernels kPeakKernelsAmx = {Int8Dots, 4 * 2 * kRows* kRows* kBytes};

}  // namespace onegrid::cpu
