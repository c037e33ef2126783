#include "kernels/cpu/top_products.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>

#include "absl/container/flat_hash_map.h"
#include "kernels/base/check.h"
#include "kernels/base/clones.h"
#include "kernels/cpu/linear_kernels.h"

namespace onegrid::cpu {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();
// Products that are looked at together, and lanes without an order among them.
constexpr int64_t kBlock = 64;
constexpr int64_t kLanes = 16;

}  // namespace

ONEGRID_CLONES float LargestOf(const float* values, int64_t count) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, kNone);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      lanes[j] = values[i + j] > lanes[j] ? values[i + j] : lanes[j];
    }
  }
  for (; i < count; ++i) lanes[0] = std::max(lanes[0], values[i]);
  return *std::max_element(lanes, lanes + kLanes);
}

namespace {

// The largest of each block of `values`.
std::vector<float> LargestOfBlocks(const float* values, int64_t n) {
  std::vector<float> largest;
  for (int64_t first = 0; first < n; first += kBlock) {
    largest.push_back(LargestOf(values + first, std::min(kBlock, n - first)));
  }
  return largest;
}

float NthLargest(std::vector<float> values, int n) {
  if (values.size() < static_cast<size_t>(n)) return kNone;
  const auto last = values.begin() + n - 1;
  std::nth_element(values.begin(), last, values.end(), std::greater<float>());
  return *last;
}

bool Before(const TopProduct& a, const TopProduct& b) {
  return a.value != b.value ? a.value > b.value : a.index < b.index;
}

// Products of one row of activations in 16 bits, each tile computed once.
class ExactRow {
 public:
  ExactRow(const QuantizedActivations& x, const PackedLinear& weights)
      : x_(x), weights_(weights) {}

  TopProduct Of(int64_t row) {
    const int64_t tile = row / kTileRows;
    const auto [at, is_new] = products_.try_emplace(tile);
    if (is_new) LinearTile(x_, weights_, tile, at->second.data());
    const float value = at->second[static_cast<size_t>(row % kTileRows)];
    return {static_cast<int32_t>(row), value == value ? value : kNone};
  }
  int64_t tiles_computed() const {
    return static_cast<int64_t>(products_.size());
  }

 private:
  const QuantizedActivations& x_;
  const PackedLinear& weights_;
  absl::flat_hash_map<int64_t, std::array<float, kTileRows>> products_;
};

}  // namespace

TopProducts::TopProducts(const PackedLinear& weights, kernels::ThreadPool& pool,
                         kernels::Isa isa)
    : weights_(weights),
      pool_(pool),
      isa_(isa),
      norms_(static_cast<size_t>(weights.n())) {
  KERNELS_CHECK(weights.has_codes());
  RowNorms(weights, norms_.data(), pool, isa);
  // Squares and their sum are rounded k + 1 times, by 2^-24 at most each; the
  // root halves that, and is rounded itself.
  const float up = 1 + 0x1p-24f * static_cast<float>(weights.k() + 8);
  for (float& norm : norms_) norm *= up;
  block_norms_ = LargestOfBlocks(norms_.data(), weights.n());
  largest_norm_ = *std::max_element(block_norms_.begin(), block_norms_.end());
}

float TopProducts::ErrorOfNorm1(int64_t m) const {
  const QuantizedActivations& exact = exact_[static_cast<size_t>(m)];
  double error = 0, norm = 0;
  for (int64_t g = 0; g < exact.groups(); ++g) {
    const double fine = exact.ScaleAt(0, g), coarse = coarse_.ScaleAt(m, g);
    for (int64_t k = g * kLinearGroup; k < (g + 1) * kLinearGroup; ++k) {
      const double x = exact.CodeAt(0, k) * fine;
      const double rest = x - coarse_.CodeAt(m, k) * coarse;
      error += rest * rest;
      norm += x * x;
    }
  }
  error = std::sqrt(error);
  norm = std::sqrt(norm) + error;
  // Sums that may overflow on their way keep to no bound.
  if (!(norm * largest_norm_ < double{std::numeric_limits<float>::max()} / 2)) {
    return std::numeric_limits<float>::infinity();
  }
  // Each of both products is a sum of a term for each group, and these sum up,
  // without their signs, to |x| |w| at most. A term is rounded three times, the
  // sum once for each, and the bounds twice.
  const double rounding =
      2 * 0x1p-24 * static_cast<double>(exact.groups() + 8) * norm;
  return static_cast<float>((error + rounding) * (1 + 0x1p-20));
}

template <typename Visit>
void TopProducts::ForEachAtLeast(const float* coarse,
                                 const std::vector<float>& blocks, float error,
                                 float least, const Visit& visit) const {
  for (size_t b = 0; b < blocks.size(); ++b) {
    if (blocks[b] + error * block_norms_[b] < least) continue;
    const int64_t first = static_cast<int64_t>(b) * kBlock;
    const int64_t end = std::min(first + kBlock, weights_.n());
    for (int64_t row = first; row < end; ++row) {
      const float off = error * norms_[static_cast<size_t>(row)];
      if (!(coarse[row] + off < least)) visit(row);
    }
  }
}

int64_t TopProducts::FindRow(int64_t m, int count, const float* coarse) {
  const float error = ErrorOfNorm1(m);
  const std::vector<float> blocks = LargestOfBlocks(coarse, weights_.n());
  ExactRow exact(exact_[static_cast<size_t>(m)], weights_);
  std::vector<TopProduct>& best = best_[static_cast<size_t>(m)];
  const auto add = [&](int64_t row) { best.push_back(exact.Of(row)); };
  const auto nth = [&] { return best.begin() + count - 1; };
  // As good a `count` of them as any: what the least of these is excludes most
  // of all others.
  best.clear();
  ForEachAtLeast(coarse, blocks, 0, NthLargest(blocks, count), add);
  std::nth_element(best.begin(), nth(), best.end(), Before);
  const float least = nth()->value;
  best.clear();
  ForEachAtLeast(coarse, blocks, error, least, add);
  if (best.size() < static_cast<size_t>(count)) {
    // Of activations that are no numbers, codes are out of range.
    best.clear();
    ForEachAtLeast(coarse, blocks, error, kNone, add);
  }
  std::partial_sort(best.begin(), nth() + 1, best.end(), Before);
  best.erase(nth() + 1, best.end());
  return exact.tiles_computed();
}

absl::Span<const std::vector<TopProduct>> TopProducts::Find(
    absl::Span<const float> x, absl::Span<const int> counts, float* scratch) {
  const int64_t k = weights_.k();
  const auto rows = static_cast<int64_t>(counts.size());
  KERNELS_CHECK(static_cast<int64_t>(x.size()) == rows * k);
  QuantizeActivations(x, rows, k, CodeBits::k8, &coarse_, pool_, isa_);
  Linear(coarse_, weights_, scratch, pool_, isa_);
  if (exact_.size() < counts.size()) exact_.resize(counts.size());
  if (best_.size() < counts.size()) best_.resize(counts.size());
  for (int64_t m = 0; m < rows; ++m) {
    KERNELS_CHECK(counts[static_cast<size_t>(m)] >= 1 &&
                  counts[static_cast<size_t>(m)] <= weights_.n());
    QuantizeActivations(
        x.subspan(static_cast<size_t>(m * k), static_cast<size_t>(k)), 1, k,
        CodeBits::k16, &exact_[static_cast<size_t>(m)], pool_, isa_);
  }
  std::atomic<int64_t> computed{0};
  pool_.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t m = begin; m < end; ++m) {
      computed += FindRow(m, counts[static_cast<size_t>(m)],
                          scratch + m * weights_.n());
    }
  });
  tiles_computed_ = computed;
  return absl::MakeConstSpan(best_).first(counts.size());
}

}  // namespace onegrid::cpu
