#include "kernels/cpu/gated_linear.h"

#include <algorithm>
#include <cstdint>

#include "kernels/base/check.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/tile_slices.h"
#include "kernels/cpu/vector_kernels.h"

namespace onegrid::cpu {
namespace {

// Rows and columns that are worked on at a time, at most: 128 KB of each of the
// two products.
constexpr int64_t kRowsMost = 256;
constexpr int64_t kColumnsMost = 128;
// Of a slice that is read in streams, of few rows.
constexpr int64_t kSliceTiles = 64;
static_assert(kSliceTiles * kTileRows * kMaxPanelRows <=
              kRowsMost * kColumnsMost);
// Tiles of a group of columns, which gets one scale.
constexpr int64_t kGroupTiles = kLinearGroup / kTileRows;

// Panels of rows that a thread takes with each set of weights: as many as fit,
// but some for each thread.
int64_t PanelsPerChunk(const QuantizedActivations& x, int64_t threads) {
  const auto panels = static_cast<int64_t>(x.panels().size());
  const int64_t most = kRowsMost / x.kernels().panel_rows;
  const int64_t chunks = (panels - 1) / most + 1;
  if (panels < 4 * threads) return (panels - 1) / chunks + 1;
  return (panels - 1) / ((chunks - 1) / threads * threads + threads) + 1;
}

// Some columns of a chunk of panels.
void MultiplyPart(const QuantizedActivations& x, const PackedLinear& gate,
                  const PackedLinear& up, const ProductPart& part,
                  const VectorKernels& vectors, QuantizedActivations* out) {
  constexpr int64_t kRoom = kRowsMost * kColumnsMost;
  const TileSlice& slice = part.slice;
  const int64_t columns = slice.size() * kTileRows;
  const int64_t part_rows =
      x.PanelFirstRow(part.panel + part.panels) - x.PanelFirstRow(part.panel);
  KERNELS_CHECK(part_rows * columns <= kRoom);
  alignas(64) float gates[kRoom];
  alignas(64) float ups[kRoom];
  LinearPart(x, gate, part, gates);
  LinearPart(x, up, part, ups);
  const int64_t groups = slice.tiles / kGroupTiles;  // of a stream
  int64_t at = 0;
  for (int64_t panel = part.panel; panel < part.panel + part.panels; ++panel) {
    const int rows = x.panels()[static_cast<size_t>(panel)].rows;
    // At once, so that no row waits for another.
    vectors.gelu_mul(gates + at, ups + at, rows * columns, gates + at);
    for (int row = 0; row < rows; ++row) {
      for (int64_t s = 0; s < slice.streams; ++s) {
        out->SetGroups(panel, row, (slice.tile + s * slice.apart) / kGroupTiles,
                       groups, gates + at);
        at += groups * kLinearGroup;
      }
    }
  }
}

}  // namespace

void GatedLinear(const QuantizedActivations& x, const PackedLinear& gate,
                 const PackedLinear& up, QuantizedActivations* out,
                 kernels::ThreadPool& pool, kernels::Isa isa) {
  KERNELS_CHECK(gate.n() == up.n() && gate.n() % kLinearGroup == 0);
  KERNELS_CHECK(out != &x);
  out->Reset(x.m(), gate.n(), x.bits(), isa);
  KERNELS_CHECK(&out->kernels() == &x.kernels());
  if (x.m() == 0) return;
  const VectorKernels& vectors = VectorKernelsFor(isa);
  const auto panels = static_cast<int64_t>(x.panels().size());
  const int64_t tiles = gate.tile_count();
  if (x.streams() > 0) {
    const TileSlices slices({tiles, gate.bytes() / tiles, kGroupTiles},
                            kSliceTiles, x.streams(), pool.size());
    const auto first = [&](int worker) {
      return slices.FirstOf(worker, gate.tiles());
    };
    pool.ParallelFor(slices.count(), 1, {gate.tiles(), first},
                     [&](int64_t begin, int64_t end, int) {
                       for (int64_t i = begin; i < end; ++i) {
                         const TileSlice slice = slices[i];
                         if (slice.size() == 0) continue;
                         MultiplyPart(x, gate, up, {0, panels, slice}, vectors,
                                      out);
                       }
                     });
    return;
  }
  const int64_t per_chunk = PanelsPerChunk(x, pool.size());
  const int64_t chunks = (panels - 1) / per_chunk + 1;
  // A group of columns at least, and what the kernels take at once.
  const int64_t set = kColumnsMost / kTileRows;
  const int64_t sets = (tiles - 1) / set + 1;
  pool.ParallelFor(chunks * sets, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t panel = item / sets * per_chunk;
      const int64_t tile = item % sets * set;
      MultiplyPart(x, gate, up,
                   {panel,
                    std::min(per_chunk, panels - panel),
                    {tile, std::min(set, tiles - tile)}},
                   vectors, out);
    }
  });
}

}  // namespace onegrid::cpu
