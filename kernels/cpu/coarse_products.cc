#include "kernels/cpu/coarse_products.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/clones.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/vector_kernels.h"

namespace onegrid::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Lanes without an order among them.
constexpr int64_t kLanes = 16;

std::vector<float> NormsOf(const PackedLinear& weights,
                           kernels::ThreadPool& pool, kernels::Isa isa) {
  KERNELS_CHECK(weights.has_codes());
  std::vector<float> norms(static_cast<size_t>(weights.n()));
  RowNorms(weights, norms.data(), pool, isa);
  for (float& norm : norms) norm *= NormSlack(weights.k());
  return norms;
}

}  // namespace

ONEGRID_CLONES float LargestOf(const float* values, int64_t count) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, -kInfinity);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      lanes[j] = values[i + j] > lanes[j] ? values[i + j] : lanes[j];
    }
  }
  for (; i < count; ++i) lanes[0] = std::max(lanes[0], values[i]);
  return *std::max_element(lanes, lanes + kLanes);
}

void LargestOfTiles(const float* values, int64_t n, float* to,
                    kernels::Isa isa) {
  const int64_t whole = n / kTileRows;
  VectorKernelsFor(isa).largest_of_16(values, whole, to);
  const int64_t done = whole * kTileRows;
  if (done < n) to[whole] = LargestOf(values + done, n - done);
}

RowBounds::RowBounds(std::vector<float> values) : values_(std::move(values)) {
  const auto n = static_cast<int64_t>(values_.size());
  of_tiles_.resize(static_cast<size_t>((n + kTileRows - 1) / kTileRows));
  LargestOfTiles(values_.data(), n, of_tiles_.data());
  largest_ = LargestOf(values_.data(), n);
}

Deviation DeviationOf(const QuantizedActivations& codes, int64_t m,
                      absl::Span<const double> x,
                      absl::Span<const float> scales) {
  std::vector<double> coded(x.size());
  codes.DequantizeRow(m, coded.data());
  double rest = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double value = x[i] * scales[i];
    const double left = value - coded[i] * scales[i];
    rest += left * left;
    norm += value * value;
  }
  rest = std::sqrt(rest);
  return {rest, std::sqrt(norm) + rest};
}

bool SumsStayFinite(const Deviation& x, double weight_norm) {
  return x.norm * weight_norm < double{std::numeric_limits<float>::max()} / 2;
}

double SumRounding(int64_t groups) {
  // Each of two products is a sum of a term for each group, and these sum up,
  // without their signs, to |x| |w| at most. A term is rounded three times, the
  // sum once for each, and what is made of both a few times.
  return 2 * 0x1p-24 * static_cast<double>(groups + 16);
}

float NormSlack(int64_t k) {
  // Squares and their sum are rounded k + 1 times, by 2^-24 at most each; the
  // root halves that, and is rounded itself.
  return 1 + 0x1p-24f * static_cast<float>(k + 8);
}

ByteProducts::ByteProducts(const PackedLinear& weights,
                           kernels::ThreadPool& pool, kernels::Isa isa)
    : weights_(weights), pool_(pool), isa_(isa) {
  bounds_.emplace_back(NormsOf(weights, pool, isa));
}

void ByteProducts::Multiply(absl::Span<const float> x, int64_t m, float* out,
                            float* of_tiles) {
  QuantizeActivations(x, m, weights_.k(), CodeBits::k8, &codes_, pool_, isa_);
  Linear(codes_, weights_, out, pool_, isa_);
  // The tiles of each row in parts, so that one row is many threads' work too.
  constexpr int64_t kPartTiles = 2048;
  const int64_t n = weights_.n(), tiles = weights_.tile_count();
  const int64_t parts = (tiles - 1) / kPartTiles + 1;
  pool_.ParallelFor(m * parts, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / parts, tile = i % parts * kPartTiles;
      const int64_t first = tile * kTileRows;
      LargestOfTiles(out + row * n + first,
                     std::min(kPartTiles * kTileRows, n - first),
                     of_tiles + row * tiles + tile, isa_);
    }
  });
}

std::vector<float> ByteProducts::Errors(
    int64_t m, const QuantizedActivations& exact) const {
  std::vector<double> x(static_cast<size_t>(exact.k()));
  exact.DequantizeRow(0, x.data());
  const std::vector<float> ones(x.size(), 1.0f);
  const Deviation off = DeviationOf(codes_, m, x, ones);
  if (!SumsStayFinite(off, bounds_[0].largest())) return {kInfinity};
  return {static_cast<float>(
      (off.rest + SumRounding(exact.groups()) * off.norm) * (1 + 0x1p-20))};
}

}  // namespace onegrid::cpu
