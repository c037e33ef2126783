#include "kernels/cpu/tiled_matmul.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/types/span.h"
#include "kernels/base/check.h"
#include "kernels/cpu/nibble_planes.h"

namespace onegrid::cpu {
namespace {

// Panels to a thread, at least, where each has rows of its own: each then reads
// all of the weights.
constexpr int64_t kLeastPanels = 4;
// Weights that a thread takes at once, at most: or some wait for the last of a
// large matrix.
constexpr int64_t kRangeBytes = 1 << 20;
// Weights of a slice that is read in streams, at most.
constexpr int64_t kSliceBytes = 1 << 20;
// Rows and groups of one block in float mode: 16 KB of expanded weights.
constexpr int64_t kF32Rows = 96;
constexpr int64_t kF32Groups = 8;

// Copies the first `columns` of 16 columns.
void CopyColumns(const float* from, int64_t rows, int64_t columns, float* out,
                 int64_t out_stride) {
  for (int64_t m = 0; m < rows; ++m) {
    std::memcpy(out + m * out_stride, from + m * kTileRows,
                static_cast<size_t>(columns) * sizeof(float));
  }
}

// Panels that pass over the weight tiles together. With many rows each thread
// has rows of its own, which it also has in the loops before and after
// (ParallelFor).
int64_t PanelsPerChunk(int64_t panels, const LinearKernels& kernels, int64_t k,
                       int64_t threads) {
  const int64_t most =
      std::max<int64_t>(1, kernels.pass_bytes / (k * kernels.panel_rows));
  int64_t chunks = (panels - 1) / most + 1;
  if (panels >= kLeastPanels * threads) {
    chunks = (chunks - 1) / threads * threads + threads;
  }
  return (panels - 1) / chunks + 1;
}

// Tiles that a thread takes at once with a chunk: some times what the kernels
// take at once, so that no thread has much more to do than others.
int64_t TilesPerSet(int64_t chunks, int64_t tiles, int64_t tile_bytes,
                    int64_t at_once, const kernels::ThreadPool& pool) {
  const int64_t items = chunks * tiles;
  const int64_t most =
      std::max({std::min(pool.GrainFor(items), kRangeBytes / tile_bytes),
                std::min(at_once, items / pool.size()), int64_t{1}});
  // Fewer than at_once only where threads would have none.
  const int64_t unit = std::min(at_once, most);
  // Tiles of the thread that has most.
  const auto share = [&](int64_t set) {
    const int64_t sets = (tiles - 1) / set + 1;
    return ((chunks * sets - 1) / pool.size() + 1) * set;
  };
  int64_t best = unit;
  for (int64_t set = unit; set <= most; set += unit) {
    // Large sets cost less, as long as shares are about equal.
    if (50 * share(set) <= 51 * share(best)) best = set;
  }
  return best;
}

// The last tile times a chunk of panels, the rows of out, where it is past the
// end of the weights.
void MultiplyEdge(absl::Span<const ActivationPanel> chunk,
                  const TiledWeights& weights, TileKernel kernel, float* out) {
  const int64_t whole = weights.n / kTileRows;
  float* to = out + whole * kTileRows;
  for (const ActivationPanel& panel : chunk) {
    float edge[kMaxPanelRows * kTileRows];
    kernel(&panel, 1, weights.Tile(whole), edge, kTileRows);
    CopyColumns(edge, panel.rows, weights.n - whole * kTileRows, to, weights.n);
    to += panel.rows * weights.n;
  }
}

// A product whose weights are read in streams, slice by slice.
class StreamedProduct {
 public:
  StreamedProduct(const QuantizedActivations& x, const TiledProduct& product,
                  int64_t threads)
      : x_(x),
        product_(product),
        whole_(product.weights.n / kTileRows),
        // Of none that is whole one, which is not computed.
        slices_(
            {std::max<int64_t>(whole_, 1), product.weights.Tile(0).stride},
            std::max<int64_t>(kSliceBytes / product.weights.tile_bytes(), 1),
            x.streams(), threads) {}

  int64_t slices_per_share() const { return slices_.per_share(); }
  kernels::FirstReads FirstOf(int64_t share) const {
    return slices_.FirstOf(share, product_.weights.tiles);
  }

  void Multiply(int64_t slice_index) const {
    const auto& [weights, kernel, out] = product_;
    const TileSlice slice = slices_[slice_index];
    if (whole_ > 0) {
      MultiplySlice(x_.panels(), x_.kernels(), kernel, weights, slice,
                    slice.apart * kTileRows, out + slice.tile * kTileRows,
                    weights.n);
    }
    if (whole_ < weights.tile_count() && slice_index == slices_.count() - 1) {
      MultiplyEdge(x_.panels(), weights, kernel, out);
    }
  }

 private:
  const QuantizedActivations& x_;
  const TiledProduct& product_;
  const int64_t whole_;  // Tiles
  const TileSlices slices_;
};

// Each thread's share of each product, one after the other.
void MultiplyInStreams(const QuantizedActivations& x,
                       absl::Span<const TiledProduct> products,
                       kernels::ThreadPool& pool) {
  std::vector<StreamedProduct> streamed;
  int64_t per_share = 0;
  for (const TiledProduct& product : products) {
    streamed.emplace_back(x, product, pool.size());
    per_share += streamed.back().slices_per_share();
  }
  const auto multiply = [&](int64_t share, int64_t part) {
    for (const StreamedProduct& product : streamed) {
      const int64_t slices = product.slices_per_share();
      if (part < slices) return product.Multiply(share * slices + part);
      part -= slices;
    }
  };
  pool.ParallelFor(per_share * pool.size(), 1,
                   {products[0].weights.tiles,
                    [&](int worker) { return streamed[0].FirstOf(worker); }},
                   [&](int64_t begin, int64_t end, int) {
                     x.BeginProducts();
                     for (int64_t i = begin; i < end; ++i) {
                       multiply(i / per_share, i % per_share);
                     }
                     x.EndProducts();
                   });
}

// Each chunk of panels times each set of tiles.
void MultiplyInSets(const QuantizedActivations& x, const TiledProduct& product,
                    kernels::ThreadPool& pool) {
  const TiledWeights& weights = product.weights;
  const absl::Span<const ActivationPanel> panels = x.panels();
  const int64_t tiles = weights.tile_count();
  const auto count = static_cast<int64_t>(panels.size());
  const int64_t panels_per_chunk =
      PanelsPerChunk(count, x.kernels(), weights.k, pool.size());
  const int64_t chunks = (count - 1) / panels_per_chunk + 1;
  const int64_t whole = weights.n / kTileRows;
  const int64_t set = TilesPerSet(chunks, tiles, weights.tile_bytes(),
                                  x.kernels().tiles_most, pool);
  const int64_t sets = (tiles - 1) / set + 1;
  pool.ParallelFor(chunks * sets, 1, [&](int64_t begin, int64_t end, int) {
    x.BeginProducts();
    for (int64_t item = begin; item < end; ++item) {
      const int64_t panel = item / sets * panels_per_chunk;
      const int64_t first = item % sets * set;
      const auto chunk = panels.subspan(static_cast<size_t>(panel),
                                        static_cast<size_t>(panels_per_chunk));
      float* to = product.out + x.PanelFirstRow(panel) * weights.n;
      MultiplySlice(chunk, x.kernels(), product.kernel, weights,
                    {first, std::min(first + set, whole) - first}, 0,
                    to + first * kTileRows, weights.n);
      if (std::min(first + set, tiles) > whole) {
        MultiplyEdge(chunk, weights, product.kernel, to);
      }
    }
    x.EndProducts();
  });
}

}  // namespace

TileBytes TiledWeights::Tiles(int64_t t, int64_t count) const {
  if (lower == nullptr) {
    return {tiles + t * tile_bytes(), nullptr, count, tile_bytes()};
  }
  const int64_t upper_bytes = groups() * kUpperGroupBytes;
  const int64_t lower_bytes = groups() * kLowerGroupBytes;
  return {tiles + t * upper_bytes, lower + t * lower_bytes, count, upper_bytes,
          lower_bytes};
}

const uint8_t* TiledWeights::WholeTile(
    int64_t t, kernels::AlignedBuffer<uint8_t>& buffer) const {
  if (lower == nullptr) return Tile(t).at;
  JoinTile(Tile(t), groups(), buffer.data());
  return buffer.data();
}

kernels::AlignedBuffer<uint8_t> TiledWeights::Buffer() const {
  return kernels::AlignedBuffer<uint8_t>(
      lower == nullptr ? 0 : static_cast<size_t>(tile_bytes()));
}

void MultiplySlice(absl::Span<const ActivationPanel> panels,
                   const LinearKernels& kernels, TileKernel kernel,
                   const TiledWeights& weights, const TileSlice& slice,
                   int64_t stream_columns, float* out, int64_t out_stride) {
  const auto count = static_cast<int64_t>(panels.size());
  if (slice.streams == 1) {
    const int64_t at_once = kernels.tiles_most;
    for (int64_t t = 0; t < slice.tiles; t += at_once) {
      kernel(panels.data(), count,
             weights.Tiles(slice.tile + t, std::min(at_once, slice.tiles - t)),
             out + t * kTileRows, out_stride);
    }
    return;
  }
  for (int64_t t = 0; t < slice.tiles; ++t) {
    TileBytes tiles = weights.Tiles(slice.tile + t, slice.streams);
    tiles.stride *= slice.apart;
    tiles.lower_stride *= slice.apart;
    tiles.columns = stream_columns;
    kernel(panels.data(), count, tiles, out + t * kTileRows, out_stride);
  }
}

void TiledMatmul(const QuantizedActivations& x,
                 absl::Span<const TiledProduct> products,
                 kernels::ThreadPool& pool) {
  for (const TiledProduct& product : products) {
    KERNELS_CHECK(x.k() == product.weights.k);
  }
  if (x.m() == 0 || products.empty()) return;
  if (x.streams() > 0) return MultiplyInStreams(x, products, pool);
  for (const TiledProduct& product : products) MultiplyInSets(x, product, pool);
}

void TiledMatmulF32(const float* x, int64_t m, const TiledWeights& weights,
                    ExpandKernel expand, const FloatKernels& run, float* out,
                    kernels::ThreadPool& pool) {
  if (m == 0) return;
  const int64_t tiles = weights.tile_count();
  const int64_t chunks = (m - 1) / kF32Rows + 1;
  const int64_t groups = weights.groups();
  const auto body = [&](int64_t begin, int64_t end, int) {
    alignas(64) float w[kF32Groups * kLinearGroup * kTileRows];
    float edge[kF32Rows * kTileRows];
    kernels::AlignedBuffer<uint8_t> buffer = weights.Buffer();
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item / tiles * kF32Rows;
      const int64_t t = item % tiles;
      const int64_t rows = std::min(kF32Rows, m - first);
      const uint8_t* tile = weights.WholeTile(t, buffer);
      const int64_t columns =
          std::min<int64_t>(kTileRows, weights.n - t * kTileRows);
      const bool whole = columns == kTileRows;
      float* to = out + first * weights.n + t * kTileRows;
      for (int64_t g = 0; g < groups; g += kF32Groups) {
        const int64_t count = std::min(kF32Groups, groups - g);
        expand(tile + g * weights.group_bytes, count, w);
        run.f32_tile(x + first * weights.k + g * kLinearGroup, weights.k, rows,
                     w, count * kLinearGroup, g > 0, whole ? to : edge,
                     whole ? weights.n : kTileRows);
      }
      if (!whole) CopyColumns(edge, rows, columns, to, weights.n);
    }
  };
  pool.ParallelFor(chunks * tiles, pool.GrainFor(chunks * tiles), body);
}

}  // namespace onegrid::cpu
