#include "kernels/cpu/top_products.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/base/clones.h"
#include "kernels/cpu/linear_kernels.h"

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

ONEGRID_CLONES void AddTimes(const float* norms, float error, int64_t count,
                             float* to) {
  constexpr int64_t kLanes = 16;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) to[i + j] += error * norms[i + j];
  }
  for (; i < count; ++i) to[i] += error * norms[i];
}

// Tiles of which Guess takes the largest product only.
constexpr int64_t kGuessTiles = 16;
// Tiles that a thread looks at for Collect in one go.
constexpr int64_t kPartTiles = 2048;

}  // namespace

TopProducts::TopProducts(const PackedLinear& weights, kernels::ThreadPool& pool,
                         kernels::Isa isa)
    : weights_(weights), pool_(pool), isa_(isa) {
  KERNELS_CHECK(weights.has_codes());
}

void TopProducts::Begin(absl::Span<const float> x, Search& search) {
  QuantizeActivations(x, 1, weights_.k(), CodeBits::k16, &search.x, pool_,
                      isa_);
  search.tiles.clear();
  search.products.clear();
  search.rows.clear();
  search.places.assign(static_cast<size_t>(weights_.tile_count()), -1);
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
  pool_.ParallelFor(
      count, pool_.GrainFor(count), [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const auto& [search, tile] = items[static_cast<size_t>(i)];
          LinearTile(search->x, weights_, search->tiles[tile],
                     search->products[tile].data());
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
  std::vector<float> largest;
  for (int64_t tile = 0; tile < tiles; tile += kGuessTiles) {
    largest.push_back(
        LargestOf(search.of_tiles + tile, std::min(kGuessTiles, tiles - tile)));
  }
  // More than are wanted: the better the least of them, the fewer others can
  // be above it.
  const float least =
      NthLargest(std::move(largest), int64_t{count} + count / 2 + 8);
  for (int64_t tile = 0; tile < tiles; ++tile) {
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
  const auto add = [&](const auto& bounds_of, int64_t first, int64_t count,
                       float* to) {
    for (size_t i = 0; i < search.errors.size(); ++i) {
      AddTimes(bounds_of(bounds.bounds()[i]) + first, search.errors[i], count,
               to);
    }
  };
  std::vector<float> most(search.of_tiles + begin, search.of_tiles + end);
  add([](const RowBounds& of) { return of.of_tiles(); }, begin, end - begin,
      most.data());
  std::vector<int32_t> rows;
  for (int64_t tile = begin; tile < end; ++tile) {
    if (most[static_cast<size_t>(tile - begin)] < least) continue;
    const int64_t first = tile * kTileRows;
    const int64_t count = std::min<int64_t>(kTileRows, weights_.n() - first);
    float of_rows[kTileRows];
    std::copy(coarse + first, coarse + first + count, of_rows);
    add([](const RowBounds& of) { return of.values(); }, first, count, of_rows);
    for (int64_t r = 0; r < count; ++r) {
      if (of_rows[r] < least) continue;
      rows.push_back(static_cast<int32_t>(first + r));
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
  for (size_t m = 0; m < counts.size(); ++m) {
    KERNELS_CHECK(counts[m] >= 1 && counts[m] <= n);
    Begin(x.subspan(m * static_cast<size_t>(k), static_cast<size_t>(k)),
          searches_[m]);
  }
  of_tiles_.resize(static_cast<size_t>(rows * weights_.tile_count()));
  coarse.Multiply(x, rows, scratch, of_tiles_.data());
  for (int64_t m = 0; m < rows; ++m) {
    searches_[static_cast<size_t>(m)].of_tiles =
        of_tiles_.data() + m * weights_.tile_count();
  }
  const auto each = [&](auto&& visit) {
    pool_.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t m = begin; m < end; ++m) visit(m);
    });
  };
  each([&](int64_t m) {
    Search& search = searches_[static_cast<size_t>(m)];
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
