#include "kernels/cpu/top_products.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/base/clones.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/vector_kernels.h"

namespace onegrid::cpu {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

float NthLargest(std::vector<float> values, int64_t n) {
  if (static_cast<int64_t>(values.size()) < n) return kNone;
  const auto last = values.begin() + n - 1;
  std::nth_element(values.begin(), last, values.end(), std::greater<float>());
  return *last;
}

bool Before(const TopProduct& a, const TopProduct& b) {
  return a.value != b.value ? a.value > b.value : a.index < b.index;
}

// At most any product whose SoftCap is `least` or more.
float LeastBeforeCap(float least, float cap) {
  const double ratio = double{least} / cap - kSoftCapError;
  if (!(ratio > -1)) return kNone;
  const double product = cap * std::atanh(ratio);
  return std::nextafter(static_cast<float>(product), kNone);
}

// How far products of rows, or of tiles, may be off: the sum over i of
// errors[i] * norms[i][at].
struct Slack {
  absl::Span<const float> errors;
  std::vector<const float*> norms;
};

// Bit j, j < width <= 16: whether values[j] and the slack at `first` + j is not
// below `least`.
inline uint32_t BitsReaching(const float* values, const Slack& slack,
                             int64_t first, int64_t width, float least) {
  float most[kTileRows];
  for (int64_t j = 0; j < width; ++j) most[j] = values[j];
  for (size_t i = 0; i < slack.errors.size(); ++i) {
    const float error = slack.errors[i];
    const float* norms = slack.norms[i] + first;
    for (int64_t j = 0; j < width; ++j) most[j] += error * norms[j];
  }
  uint32_t bits = 0;
  for (int64_t j = 0; j < width; ++j) {
    bits |= uint32_t{!(most[j] < least)} << j;
  }
  return bits;
}

ONEGRID_CLONES uint32_t Reaching(const float* values, const Slack& slack,
                                 int64_t first, int64_t width, float least) {
  // So that the usual width is a constant.
  return width == kTileRows
             ? BitsReaching(values, slack, first, kTileRows, least)
             : BitsReaching(values, slack, first, width, least);
}

// What Reaching reads of a tile's rows, which has left the caches: for all
// tiles before the first is looked at, or each is waited for.
void FetchRows(const float* values, const Slack& slack, int64_t first) {
  __builtin_prefetch(values + first);
  for (const float* norms : slack.norms) __builtin_prefetch(norms + first);
}

// Tiles that a thread looks at for Collect in one go.
constexpr int64_t kPartTiles = 2048;

}  // namespace

TopProducts::TopProducts(const PackedLinear& weights, kernels::ThreadPool& pool,
                         kernels::Isa isa, float cap)
    : weights_(weights), pool_(pool), isa_(isa), cap_(cap) {
  KERNELS_CHECK(weights.has_codes());
  KERNELS_CHECK(cap >= 0);
}

void TopProducts::Begin(absl::Span<const float> x, Search& search) {
  QuantizeActivations(x, 1, weights_.k(), CodeBits::k16, &search.x, pool_,
                      isa_);
  search.places.resize(static_cast<size_t>(weights_.tile_count()), -1);
  for (const int32_t tile : search.tiles) {
    search.places[static_cast<size_t>(tile)] = -1;
  }
  search.tiles.clear();
  search.products.clear();
  search.rows.clear();
}

void TopProducts::Want(int64_t row, Search& search) const {
  int32_t& place = search.places[static_cast<size_t>(row / kTileRows)];
  if (place < 0) {
    place = static_cast<int32_t>(search.tiles.size());
    search.tiles.push_back(static_cast<int32_t>(row / kTileRows));
  }
  search.rows.push_back(static_cast<int32_t>(row));
}

void TopProducts::ComputeTiles(int64_t searches) {
  struct Item {
    Search* search;
    size_t tile;
  };
  std::vector<Item> items;
  for (int64_t m = 0; m < searches; ++m) {
    Search& search = searches_[static_cast<size_t>(m)];
    for (size_t i = search.products.size(); i < search.tiles.size(); ++i) {
      items.push_back({&search, i});
    }
    search.products.resize(search.tiles.size());
  }
  const auto count = static_cast<int64_t>(items.size());
  const auto soft_cap = VectorKernelsFor(isa_).soft_cap;
  pool_.ParallelFor(
      count, pool_.GrainFor(count), [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const auto& [search, tile] = items[static_cast<size_t>(i)];
          if (i + 1 < end) {
            const auto& [later, next] = items[static_cast<size_t>(i + 1)];
            FetchTile(weights_, later->tiles[next]);
          }
          float* products = search->products[tile].data();
          LinearTile(search->x, weights_, search->tiles[tile], products);
          if (cap_ > 0) soft_cap(products, cap_, kTileRows, products);
        }
      });
}

TopProduct TopProducts::Exact(int32_t row, const Search& search) const {
  const int32_t place = search.places[static_cast<size_t>(row / kTileRows)];
  const float value = search.products[static_cast<size_t>(place)]
                                     [static_cast<size_t>(row % kTileRows)];
  return {row, value == value ? value : kNone};
}

void TopProducts::Guess(int count, const float* coarse, Search& search) const {
  const int64_t n = weights_.n(), tiles = weights_.tile_count();
  // Of 16 tiles at a time.
  std::vector<float> largest(static_cast<size_t>((tiles - 1) / 16 + 1));
  LargestOfTiles(search.of_tiles, tiles, largest.data(), isa_);
  // More than are wanted: the better the least of them, the fewer others can
  // be above it.
  const float least = NthLargest(largest, int64_t{count} + count / 2 + 8);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    if (largest[static_cast<size_t>(tile / 16)] < least) {
      tile |= 15;
      continue;
    }
    if (search.of_tiles[tile] < least) continue;
    const int64_t end = std::min((tile + 1) * kTileRows, n);
    for (int64_t row = tile * kTileRows; row < end; ++row) {
      if (!(coarse[row] < least)) Want(row, search);
    }
  }
}

std::vector<int32_t> TopProducts::Above(float least, const Search& search,
                                        const CoarseProducts& bounds,
                                        const float* coarse, int64_t begin,
                                        int64_t end) const {
  Slack of_tiles = {search.errors, {}}, of_rows = of_tiles;
  for (const RowBounds& bound : bounds.bounds()) {
    of_tiles.norms.push_back(bound.of_tiles());
    of_rows.norms.push_back(bound.values());
  }
  std::vector<int64_t> firsts;  // rows of tiles
  for (int64_t tile = begin; tile < end; tile += 16) {
    uint32_t tiles = Reaching(search.of_tiles + tile, of_tiles, tile,
                              std::min<int64_t>(16, end - tile), least);
    for (; tiles != 0; tiles &= tiles - 1) {
      firsts.push_back((tile + std::countr_zero(tiles)) * kTileRows);
      FetchRows(coarse, of_rows, firsts.back());
    }
  }
  std::vector<int32_t> rows;
  for (const int64_t first : firsts) {
    uint32_t found =
        Reaching(coarse + first, of_rows, first,
                 std::min<int64_t>(kTileRows, weights_.n() - first), least);
    for (; found != 0; found &= found - 1) {
      rows.push_back(static_cast<int32_t>(first + std::countr_zero(found)));
    }
  }
  return rows;
}

void TopProducts::Collect(const CoarseProducts& bounds, const float* coarse,
                          absl::Span<const int> counts) {
  const int64_t n = weights_.n(), tiles = weights_.tile_count();
  std::vector<float> least;
  for (size_t m = 0; m < counts.size(); ++m) {
    std::vector<float> values;
    for (const int32_t row : searches_[m].rows) {
      values.push_back(Exact(row, searches_[m]).value);
    }
    least.push_back(NthLargest(std::move(values), counts[m]));
    if (cap_ > 0) least.back() = LeastBeforeCap(least.back(), cap_);
  }
  const auto parts = static_cast<size_t>((tiles - 1) / kPartTiles + 1);
  std::vector<std::vector<int32_t>> found(counts.size() * parts);
  pool_.ParallelFor(
      static_cast<int64_t>(found.size()), 1,
      [&](int64_t begin, int64_t end, int) {
        for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end);
             ++i) {
          const size_t m = i / parts;
          const int64_t first = static_cast<int64_t>(i % parts) * kPartTiles;
          found[i] = Above(least[m], searches_[m], bounds,
                           coarse + static_cast<int64_t>(m) * n, first,
                           std::min(first + kPartTiles, tiles));
        }
      });
  for (size_t m = 0; m < counts.size(); ++m) {
    Search& search = searches_[m];
    search.rows.clear();
    for (size_t part = 0; part < parts; ++part) {
      for (const int32_t row : found[m * parts + part]) Want(row, search);
    }
    if (search.rows.size() >= static_cast<size_t>(counts[m])) continue;
    // Of activations that are no numbers, codes are out of range.
    search.rows.clear();
    for (int64_t row = 0; row < n; ++row) Want(row, search);
  }
}

absl::Span<const std::vector<TopProduct>> TopProducts::Find(
    CoarseProducts& coarse, absl::Span<const float> x,
    absl::Span<const int> counts, float* scratch) {
  const int64_t k = weights_.k(), n = weights_.n();
  const auto rows = static_cast<int64_t>(counts.size());
  KERNELS_CHECK(static_cast<int64_t>(x.size()) == rows * k);
  if (searches_.size() < counts.size()) searches_.resize(counts.size());
  if (best_.size() < counts.size()) best_.resize(counts.size());
  for (const int count : counts) KERNELS_CHECK(count >= 1 && count <= n);
  of_tiles_.resize(static_cast<size_t>(rows * weights_.tile_count()));
  coarse.Multiply(x, rows, scratch, of_tiles_.data());
  const auto each = [&](auto&& visit) {
    pool_.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t m = begin; m < end; ++m) visit(m);
    });
  };
  each([&](int64_t m) {
    Search& search = searches_[static_cast<size_t>(m)];
    Begin(x.subspan(static_cast<size_t>(m * k), static_cast<size_t>(k)),
          search);
    search.of_tiles = of_tiles_.data() + m * weights_.tile_count();
    search.errors = coarse.Errors(m, search.x);
    Guess(counts[static_cast<size_t>(m)], scratch + m * n, search);
  });
  ComputeTiles(rows);
  Collect(coarse, scratch, counts);
  ComputeTiles(rows);
  tiles_computed_ = 0;
  for (size_t m = 0; m < counts.size(); ++m) {
    tiles_computed_ += static_cast<int64_t>(searches_[m].tiles.size());
  }
  each([&](int64_t m) {
    std::vector<TopProduct>& best = best_[static_cast<size_t>(m)];
    const Search& search = searches_[static_cast<size_t>(m)];
    best.clear();
    for (const int32_t row : search.rows) best.push_back(Exact(row, search));
    const auto last = best.begin() + counts[static_cast<size_t>(m)];
    std::partial_sort(best.begin(), last, best.end(), Before);
    best.erase(last, best.end());
  });
  return absl::MakeConstSpan(best_).first(counts.size());
}

}  // namespace onegrid::cpu
