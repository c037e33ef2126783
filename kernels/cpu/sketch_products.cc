#include "kernels/cpu/sketch_products.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/clones.h"
#include "kernels/cpu/int4_encoder.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/nibble_planes.h"
#include "kernels/cpu/tile_slices.h"
#include "kernels/cpu/tiled_matmul.h"

namespace onegrid::cpu {
namespace {

constexpr int64_t kGroupFloats = kLinearGroup * kTileRows;
constexpr int64_t kAlongGroups = kSketchDirections / kLinearGroup;
constexpr int64_t kAlongTileBytes = kAlongGroups * kInt4GroupBytes;
// Weights that a thread takes at once, at most.
constexpr int64_t kSliceBytes = 256 << 10;
// Tiles whose largest product is looked for at once, while the products are in
// the L1 cache.
constexpr int64_t kTilesLookedAt = 16;
constexpr int64_t kColumnsLookedAt = kTilesLookedAt * kTileRows;

// values [32][16] /= scales[k]; squares[r] += those of the result.
ONEGRID_CLONES void Rescale(const float* scales, float* values,
                            float* squares) {
  for (int k = 0; k < kLinearGroup; ++k) {
    const float inverse = 1 / scales[k];  // Exactly, of a power of two.
    for (int r = 0; r < kTileRows; ++r) {
      const float value = values[k * kTileRows + r] * inverse;
      values[k * kTileRows + r] = value;
      squares[r] += value * value;
    }
  }
}

// Group g of a tile of split weights.
TileBytes GroupOf(const PackedLinear& weights, int64_t tile, int64_t g) {
  const int64_t at = tile * (weights.k() / kLinearGroup) + g;
  return {weights.tiles() + at * kUpperGroupBytes,
          weights.lower() + at * kLowerGroupBytes};
}

void AddColumnSquares(const float* values, float* squares) {
  for (int64_t i = 0; i < kGroupFloats; ++i) {
    squares[i / kTileRows] += values[i] * values[i];
  }
}

// For each column of x [rows, k] how large, squared, what 8 bits leave out is,
// but for a factor.
std::vector<float> CodeErrors(const std::vector<float>& x, int64_t rows,
                              int64_t k) {
  std::vector<float> squares(static_cast<size_t>(k));
  for (int64_t at = 0; at < rows * k; at += kLinearGroup) {
    float most = 0;
    for (int64_t i = at; i < at + kLinearGroup; ++i) {
      most = std::max(most, std::abs(x[static_cast<size_t>(i)]));
    }
    for (int64_t i = 0; i < kLinearGroup; ++i) {
      squares[static_cast<size_t>(at % k + i)] += most * most;
    }
  }
  return squares;
}

double NormOf(absl::Span<const double> x) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  return std::sqrt(squares);
}

// By how much a product of a direction with k numbers whose norm is 1, summed
// in floats, is off, over all directions.
double ProjectionRounding(int64_t k) {
  return 0x1p-24 * static_cast<double>(k + 2) *
         std::sqrt(double{kSketchDirections}) * 1.001;
}

}  // namespace

// [m][kColumnsLookedAt]: the products of q with x, and of p with c.
struct SketchProducts::SliceScratch {
  explicit SliceScratch(int64_t m)
      : told(static_cast<size_t>(m * kColumnsLookedAt)), rest(told.size()) {}

  kernels::AlignedBuffer<float> told, rest;
};

struct SketchProducts::Scratch {
  explicit Scratch(int64_t k) : left(static_cast<size_t>(k * kTileRows)) {}

  kernels::AlignedBuffer<float> left;  // [k][16], in the basis' scales
  alignas(64) float values[kGroupFloats];
  alignas(64) float along[kSketchDirections * kTileRows];
};

int64_t SketchProducts::BytesFor(const PackedLinear& weights) {
  return weights.tile_count() *
         (weights.k() / kLinearGroup * kUpperGroupBytes + kAlongTileBytes);
}

SketchProducts::SketchProducts(const PackedLinear& weights,
                               kernels::ThreadPool& pool, kernels::Isa isa)
    : weights_(weights),
      pool_(pool),
      isa_(isa),
      vectors_(VectorKernelsFor(isa)) {
  KERNELS_CHECK(weights.split());
}

void SketchProducts::Learn(absl::Span<const float> x) {
  if (ready()) return;
  const auto enough = static_cast<size_t>(kSampleRows * weights_.k());
  if (basis_.k() == 0) {
    const absl::Span<const float> part =
        x.subspan(0, std::min(x.size(), enough - sample_.size()));
    sample_.insert(sample_.end(), part.begin(), part.end());
    if (sample_.size() == enough) BeginEncoding();
    return;
  }
  const int64_t tiles = weights_.tile_count();
  const int64_t first = tiles_encoded_;
  const int64_t count =
      std::min(tiles - first, (tiles + kEncodingCalls - 1) / kEncodingCalls);
  pool_.ParallelFor(count, pool_.GrainFor(count),
                    [&](int64_t begin, int64_t end, int) {
                      Scratch scratch(weights_.k());
                      for (int64_t i = begin; i < end; ++i) {
                        EncodeTile(first + i, scratch);
                      }
                    });
  tiles_encoded_ += count;
  if (tiles_encoded_ == tiles) EndEncoding();
}

void SketchProducts::BeginEncoding() {
  const int64_t k = weights_.k(), tiles = weights_.tile_count();
  // Of some of the weights.
  constexpr int64_t kTilesSeen = 64;
  const int64_t step = std::max<int64_t>(1, tiles / kTilesSeen);
  std::vector<float> told(static_cast<size_t>(k)), left(told);
  float values[kGroupFloats];
  for (int64_t tile = 0; tile < tiles; tile += step) {
    for (int64_t g = 0; g < k / kLinearGroup; ++g) {
      const TileBytes group = GroupOf(weights_, tile, g);
      ExpandUpper(group, values);
      AddColumnSquares(values, told.data() + g * kLinearGroup);
      ExpandLower(group, values);
      AddColumnSquares(values, left.data() + g * kLinearGroup);
    }
  }
  basis_ = ChooseSketchBasis(sample_, kSampleRows, left);
  code_scales_ = ScalesBetween(told, CodeErrors(sample_, kSampleRows, k));
  std::vector<float>().swap(sample_);
  along_tiles_ = kernels::AlignedBuffer<uint8_t>(
      static_cast<size_t>(tiles * kAlongTileBytes));
  for (auto& bounds : row_bounds_) {
    bounds.resize(static_cast<size_t>(tiles * kTileRows));
  }
}

void SketchProducts::EncodeTile(int64_t tile, Scratch& scratch) {
  const int64_t k = weights_.k(), groups = k / kLinearGroup;
  // Squares: of q, of e, of V^T e as it was, in codes, and what these leave.
  float told[kTileRows] = {}, left[kTileRows] = {}, along[kTileRows] = {},
        coded[kTileRows] = {}, rest[kTileRows] = {};
  for (int64_t g = 0; g < groups; ++g) {
    const TileBytes group = GroupOf(weights_, tile, g);
    ExpandUpper(group, scratch.values);
    Rescale(code_scales_.data() + g * kLinearGroup, scratch.values, told);
    float* values = scratch.left.data() + g * kGroupFloats;
    ExpandLower(group, values);
    Rescale(basis_.scales.data() + g * kLinearGroup, values, left);
  }
  FloatKernelsFor(isa_).f32_tile(basis_.directions.data(), k, kSketchDirections,
                                 scratch.left.data(), k, /*accumulate=*/false,
                                 scratch.along, kTileRows);
  for (int64_t i = 0; i < kSketchDirections * kTileRows; ++i) {
    along[i % kTileRows] += scratch.along[i] * scratch.along[i];
  }
  for (int64_t g = 0; g < kAlongGroups; ++g) {
    EncodeInt4Group(
        scratch.along + g * kGroupFloats,
        along_tiles_.data() + tile * kAlongTileBytes + g * kInt4GroupBytes,
        coded, rest);
  }
  // |f|^2 is |e|^2 - |V^T e|^2 but for how far V is from orthonormal, how far
  // the products V^T e are off, and how far these sums are.
  const double rounding = ProjectionRounding(k);
  const double slack = 3 * (rounding + basis_.skew) +
                       0x1p-22 * static_cast<double>(k + kSketchDirections + 8);
  for (int r = 0; r < kTileRows; ++r) {
    const auto at = static_cast<size_t>(tile * kTileRows + r);
    const auto along_off =
        static_cast<float>(rounding * std::sqrt(double{left[r]})) *
        NormSlack(k);
    const double across = double{left[r]} * (1 + slack) - along[r];
    row_bounds_[kTold][at] = std::sqrt(told[r]) * NormSlack(k);
    row_bounds_[kCoded][at] =
        std::sqrt(std::max(along[r], coded[r])) * NormSlack(kSketchDirections);
    row_bounds_[kAlong][at] =
        (std::sqrt(rest[r]) + along_off) * NormSlack(kSketchDirections);
    row_bounds_[kAcross][at] =
        static_cast<float>(std::sqrt(std::max(across, 0.0)) * (1 + 0x1p-20));
  }
}

void SketchProducts::EndEncoding() {
  for (auto& values : row_bounds_) {
    values.resize(static_cast<size_t>(weights_.n()));
    bounds_.emplace_back(std::move(values));
  }
}

void SketchProducts::Multiply(absl::Span<const float> x, int64_t m, float* out,
                              float* of_tiles) {
  KERNELS_CHECK(ready());
  const int64_t k = weights_.k();
  if (m == 0) return;
  along_.resize(static_cast<size_t>(m * kSketchDirections));
  pool_.ParallelFor(m, 1, [&](int64_t begin, int64_t end, int) {
    std::vector<float> scaled(static_cast<size_t>(k));
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < k; ++i) {
        const auto at = static_cast<size_t>(i);
        scaled[at] = x[static_cast<size_t>(row * k + i)] * basis_.scales[at];
      }
      basis_.Project(scaled.data(), along_.data() + row * kSketchDirections);
    }
  });
  QuantizeActivations(x, m, k, CodeBits::k8, &codes_, pool_, isa_);
  codes_.SetBias(OddInt4Layout::kBias);
  QuantizeActivations(along_, m, kSketchDirections, CodeBits::k8, &along_codes_,
                      pool_, isa_);
  const int64_t tiles = weights_.tile_count();
  const TileSlices slices(
      {tiles, k / kLinearGroup * kUpperGroupBytes},
      std::max<int64_t>(kSliceBytes * tiles / BytesFor(weights_), 1),
      std::max<int64_t>(codes_.streams(), 1), pool_.size());
  std::vector<SliceScratch> scratch;  // of each thread
  for (int i = 0; i < pool_.size(); ++i) scratch.emplace_back(m);
  const auto first = [&](int worker) {
    return slices.FirstOf(worker, weights_.tiles());
  };
  pool_.ParallelFor(
      slices.count(), 1, {weights_.tiles(), first},
      [&](int64_t begin, int64_t end, int worker) {
        codes_.BeginProducts();  // And of along_codes_, as many rows.
        for (int64_t i = begin; i < end; ++i) {
          const TileSlice slice = slices[i];
          const int64_t each = kTilesLookedAt / slice.streams;
          for (int64_t t = 0; t < slice.tiles; t += each) {
            MultiplySlicePart(slice.Part(t, std::min(each, slice.tiles - t)), m,
                              scratch[static_cast<size_t>(worker)], out,
                              of_tiles);
          }
        }
        codes_.EndProducts();
        __builtin_ia32_sfence();  // After what add_up_16 has written.
      });
}

void SketchProducts::MultiplySlicePart(const TileSlice& part, int64_t m,
                                       SliceScratch& scratch, float* out,
                                       float* of_tiles) const {
  const int64_t n = weights_.n(), tiles = weights_.tile_count();
  const int64_t columns = part.tiles * kTileRows;
  MultiplySlice(codes_.panels(), codes_.kernels(),
                codes_.kernels().odd_int4_tile,
                {weights_.tiles(), n, weights_.k(), kUpperGroupBytes}, part,
                columns, scratch.told.data(), kColumnsLookedAt);
  MultiplySlice(along_codes_.panels(), along_codes_.kernels(),
                along_codes_.kernels().int4_tile,
                {along_tiles_.data(), n, kSketchDirections, kInt4GroupBytes},
                part, columns, scratch.rest.data(), kColumnsLookedAt);
  for (int64_t s = 0; s < part.streams; ++s) {
    const int64_t tile = part.tile + s * part.apart;
    const int64_t first = tile * kTileRows;
    const int64_t there = std::min(columns, n - first);
    for (int64_t row = 0; row < m; ++row) {
      const int64_t at = row * kColumnsLookedAt + s * columns;
      AddUp(&scratch.told[static_cast<size_t>(at)],
            &scratch.rest[static_cast<size_t>(at)], there,
            out + row * n + first, of_tiles + row * tiles + tile);
    }
  }
}

void SketchProducts::AddUp(const float* told, const float* rest, int64_t count,
                           float* sums, float* of_tiles) const {
  const int64_t whole = count / kTileRows;
  vectors_.add_up_16(told, kUpperUnit, rest, whole, sums, of_tiles);
  const int64_t done = whole * kTileRows;
  if (done == count) return;
  for (int64_t i = done; i < count; ++i) {
    sums[i] = kUpperUnit * told[i] + rest[i];
  }
  of_tiles[whole] = LargestOf(sums + done, count - done);
}

std::vector<float> SketchProducts::Errors(
    int64_t m, const QuantizedActivations& exact) const {
  const int64_t k = weights_.k();
  const float* along = along_.data() + m * kSketchDirections;
  // What is wanted are the products of what 16 bits hold.
  std::vector<double> x(static_cast<size_t>(k)), scaled(x);
  exact.DequantizeRow(0, x.data());
  for (size_t i = 0; i < x.size(); ++i) scaled[i] = x[i] * basis_.scales[i];
  const std::vector<double> c(along, along + kSketchDirections);
  const std::vector<float> ones(c.size(), 1.0f);
  const Deviation off = DeviationOf(codes_, m, x, code_scales_);
  const Deviation along_off = DeviationOf(along_codes_, m, c, ones);
  const SketchBasis::Rest rest = basis_.RestOf(scaled, along);
  const double norm = NormOf(scaled), along_norm = NormOf(c);
  const double rounding = SumRounding(k / kLinearGroup + kAlongGroups);
  // |e| is at most |f| and a little more than |V^T e|.
  constexpr double kUp = 1 + 0x1p-20, kMore = 1.01;
  const double told = off.rest + rounding * off.norm;
  const double coded =
      along_off.rest + rest.along + rounding * (along_off.norm + kMore * norm);
  const double across = rest.norm + rounding * norm;
  double weights_norm = 0;
  for (const RowBounds& bounds : bounds_) weights_norm += bounds.largest();
  if (!SumsStayFinite({off.rest, off.norm + along_off.norm + norm},
                      weights_norm)) {
    return std::vector<float>(kBounds, std::numeric_limits<float>::infinity());
  }
  std::vector<float> errors;
  for (const double error : {told, coded, along_norm, across}) {
    errors.push_back(static_cast<float>(error * kUp));
  }
  return errors;
}

}  // namespace onegrid::cpu
