#include "kernels/cpu/sketch_products.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/clones.h"
#include "kernels/base/float_types.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/quant/grid.h"

namespace onegrid::cpu {
namespace {

constexpr int64_t kGroupFloats = kLinearGroup * kTileRows;
static_assert(kSketchDirections == kLinearGroup);
// Of the largest value of a group, what the largest code stands for; that which
// leaves least is taken.
constexpr float kShares[] = {1.0f, 0.92f, 0.85f, 0.77f};

// A scale, exact in f16, with which the largest code stands for about `most`.
float ScaleFor(float most) {
  const float scale = std::min(most / 7.5f, quant::kMaxScale);
  return std::max(kernels::F16ToFloat(kernels::FloatToF16(scale)),
                  quant::kMinScale);
}

// What is left of 16 columns of 32 values in steps of `scales`, squared.
ONEGRID_CLONES void SquaresLeft(const float* values, const float* scales,
                                float* squares) {
  float inverses[kTileRows];
  for (int r = 0; r < kTileRows; ++r) {
    inverses[r] = 1 / scales[r];
    squares[r] = 0;
  }
  for (int k = 0; k < kLinearGroup; ++k) {
    for (int r = 0; r < kTileRows; ++r) {
      const float value = values[k * kTileRows + r];
      const float rest =
          value - quant::RoundStepsF32(value * inverses[r], quant::kInt4G32) *
                      scales[r];
      squares[r] += rest * rest;
    }
  }
}

// Takes codes times scales from the values, and adds the squares of both sides
// up. codes: each plus 8.
ONEGRID_CLONES void TakeCodes(const float* scales, float* values,
                              uint8_t* codes, float* squares_taken,
                              float* squares_left) {
  float inverses[kTileRows];
  for (int r = 0; r < kTileRows; ++r) inverses[r] = 1 / scales[r];
  for (int k = 0; k < kLinearGroup; ++k) {
    for (int r = 0; r < kTileRows; ++r) {
      const float value = values[k * kTileRows + r];
      const float code =
          quant::RoundStepsF32(value * inverses[r], quant::kInt4G32);
      const float taken = code * scales[r];
      const float rest = value - taken;
      codes[k * kTileRows + r] =
          static_cast<uint8_t>(static_cast<int>(code) + Int4Layout::kBias);
      values[k * kTileRows + r] = rest;
      squares_taken[r] += taken * taken;
      squares_left[r] += rest * rest;
    }
  }
}

// Encodes a group of 16 rows, values [32][16], into its place in a tile, and
// leaves in them what it leaves out.
void EncodeGroup(float* values, uint8_t* place, float* squares_taken,
                 float* squares_left) {
  float largest[kTileRows] = {};
  for (int64_t i = 0; i < kGroupFloats; ++i) {
    float& most = largest[i % kTileRows];
    most = std::max(most, std::abs(values[i]));
  }
  float scales[kTileRows], least[kTileRows];
  std::fill(least, least + kTileRows, std::numeric_limits<float>::infinity());
  for (const float share : kShares) {
    float tried[kTileRows], squares[kTileRows];
    for (int r = 0; r < kTileRows; ++r) {
      tried[r] = ScaleFor(largest[r] * share);
    }
    SquaresLeft(values, tried, squares);
    for (int r = 0; r < kTileRows; ++r) {
      if (!(squares[r] < least[r]) && share != kShares[0]) continue;
      least[r] = squares[r];
      scales[r] = tried[r];
    }
  }
  uint8_t codes[kGroupFloats];
  TakeCodes(scales, values, codes, squares_taken, squares_left);
  for (int j = 0; j < 4; ++j) {
    for (int r = 0; r < kTileRows; ++r) {
      for (int b = 0; b < 4; ++b) {
        const int low = codes[(8 * j + b) * kTileRows + r];
        const int high = codes[(8 * j + 4 + b) * kTileRows + r];
        place[64 * j + 4 * r + b] = static_cast<uint8_t>(low | high << 4);
      }
    }
  }
  auto* to = place + kInt4GroupBytes - 2 * kTileRows;
  for (int r = 0; r < kTileRows; ++r) {
    const uint16_t bits = kernels::FloatToF16(scales[r]);
    std::memcpy(to + 2 * r, &bits, sizeof(bits));
  }
}

double NormOf(const float* x, int64_t n) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += double{x[i]} * x[i];
  return std::sqrt(squares);
}

}  // namespace

int64_t SketchProducts::BytesFor(const PackedLinear& weights) {
  return weights.tile_count() * (weights.k() / kLinearGroup + 1) *
         kInt4GroupBytes;
}

SketchProducts::SketchProducts(const PackedLinear& weights,
                               kernels::ThreadPool& pool, kernels::Isa isa)
    : weights_(weights), pool_(pool), isa_(isa) {
  KERNELS_CHECK(weights.has_codes());
}

void SketchProducts::Learn(absl::Span<const float> x) {
  if (ready()) return;
  const auto enough = static_cast<size_t>(kSampleRows * weights_.k());
  if (encoding_ == nullptr) {
    const absl::Span<const float> part =
        x.subspan(0, std::min(x.size(), enough - sample_.size()));
    sample_.insert(sample_.end(), part.begin(), part.end());
    if (sample_.size() == enough) BeginEncoding();
    return;
  }
  const int64_t tiles = weights_.tile_count();
  const int64_t first = encoding_->tiles_done;
  const int64_t count =
      std::min(tiles - first, (tiles + kEncodingCalls - 1) / kEncodingCalls);
  pool_.ParallelFor(
      count, pool_.GrainFor(count), [&](int64_t begin, int64_t end, int) {
        const auto floats = static_cast<size_t>(weights_.k() * kTileRows);
        kernels::AlignedBuffer<float> values(floats), arranged(floats);
        for (int64_t i = begin; i < end; ++i) {
          EncodeTile(first + i, values.data(), arranged.data());
        }
      });
  encoding_->tiles_done += count;
  if (encoding_->tiles_done == tiles) EndEncoding();
}

void SketchProducts::BeginEncoding() {
  const int64_t k = weights_.k(), tiles = weights_.tile_count();
  // Of some of the weights.
  constexpr int64_t kTilesSeen = 64;
  const int64_t step = std::max<int64_t>(1, tiles / kTilesSeen);
  std::vector<float> squares(static_cast<size_t>(k));
  kernels::AlignedBuffer<float> values(static_cast<size_t>(k * kTileRows));
  for (int64_t tile = 0; tile < tiles; tile += step) {
    DequantizeTile(weights_, tile, values.data(), isa_);
    for (size_t i = 0; i < values.size(); ++i) {
      squares[i / kTileRows] += values[i] * values[i];
    }
  }
  const float seen = static_cast<float>((tiles - 1) / step + 1) * kTileRows;
  for (float& value : squares) value /= seen;
  basis_ = ChooseSketchBasis(sample_, kSampleRows, squares);
  std::vector<float>().swap(sample_);
  encoding_ = std::make_unique<Encoding>();
  encoding_->tiles = kernels::AlignedBuffer<uint8_t>(
      static_cast<size_t>(tiles * groups() * kInt4GroupBytes));
  for (auto& bounds : encoding_->bounds) {
    bounds.resize(static_cast<size_t>(tiles * kTileRows));
  }
}

void SketchProducts::EncodeTile(int64_t tile, float* values, float* arranged) {
  const int64_t k = weights_.k();
  DequantizeTile(weights_, tile, values, isa_);
  for (int64_t i = 0; i < k; ++i) {
    const auto at = static_cast<size_t>(i);
    const float* from = values + basis_.order[at] * kTileRows;
    for (int r = 0; r < kTileRows; ++r) {
      arranged[i * kTileRows + r] = from[r] * basis_.scales[at];
    }
  }
  uint8_t* place = encoding_->tiles.data() + tile * groups() * kInt4GroupBytes;
  const auto bound = [&](Bound which) {
    return encoding_->bounds[which].data() + tile * kTileRows;
  };
  for (int64_t g = 0; g < k / kLinearGroup; ++g) {
    EncodeGroup(arranged + g * kGroupFloats, place, bound(kWhole),
                bound(kAcross));
    place += kInt4GroupBytes;
  }
  alignas(64) float along[kSketchDirections * kTileRows];
  FloatKernelsFor(isa_).f32_tile(basis_.directions.data(), k, kSketchDirections,
                                 arranged, k,
                                 /*accumulate=*/false, along, kTileRows);
  EncodeGroup(along, place, bound(kWhole), bound(kAlong));
}

void SketchProducts::EndEncoding() {
  const int64_t k = weights_.k();
  for (auto& squares : encoding_->bounds) {
    squares.resize(static_cast<size_t>(weights_.n()));
    for (float& value : squares) {
      value = std::sqrt(value) * NormSlack(k + kLinearGroup);
    }
    bounds_.emplace_back(std::move(squares));
  }
  sketch_ = PackedLinear::Int4FromTiles(weights_.n(), k + kLinearGroup,
                                        std::move(encoding_->tiles));
  encoding_ = nullptr;
}

void SketchProducts::Multiply(absl::Span<const float> x, int64_t m,
                              float* out) {
  KERNELS_CHECK(ready());
  const int64_t k = weights_.k(), width = sketch_->k();
  arranged_.resize(static_cast<size_t>(m * width));
  for (int64_t row = 0; row < m; ++row) {
    float* to = arranged_.data() + row * width;
    basis_.Arrange(x.data() + row * k, to);
    basis_.Project(to, to + k);
  }
  QuantizeActivations(arranged_, m, width, CodeBits::k8, &codes_, pool_, isa_);
  Linear(codes_, *sketch_, out, pool_, isa_);
}

std::vector<float> SketchProducts::Errors(
    int64_t m, const QuantizedActivations& exact) const {
  const int64_t k = weights_.k(), width = sketch_->k();
  const float* along = arranged_.data() + m * width + k;
  // What is wanted are the products of what 16 bits hold.
  std::vector<double> x(static_cast<size_t>(width));
  for (size_t i = 0; i < basis_.order.size(); ++i) {
    const int64_t column = basis_.order[i];
    x[i] = exact.CodeAt(0, column) *
           double{exact.ScaleAt(0, column / kLinearGroup)} / basis_.scales[i];
  }
  std::copy(along, along + kSketchDirections, x.begin() + k);
  const Deviation off = DeviationOf(codes_, m, x);
  const double across = basis_.NormAcross(
      absl::MakeConstSpan(x).first(static_cast<size_t>(k)), along);
  // V^T e was summed in floats; the directions have a norm of 1 or less.
  const double along_norm = NormOf(along, kSketchDirections);
  const double summed = 0x1p-24 * static_cast<double>(k + 2) *
                        std::sqrt(double{kSketchDirections}) * 1.001 *
                        along_norm;
  if (!SumsStayFinite(off, double{bounds_[kWhole].largest()} +
                               bounds_[kAcross].largest())) {
    return std::vector<float>(kBounds, std::numeric_limits<float>::infinity());
  }
  const double rounding = SumRounding(groups()) * off.norm;
  constexpr double kUp = 1 + 0x1p-20;
  return {static_cast<float>((off.rest + rounding) * kUp),
          static_cast<float>(along_norm * kUp),
          static_cast<float>((across + summed + rounding) * kUp)};
}

}  // namespace onegrid::cpu
