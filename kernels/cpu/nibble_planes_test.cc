// Goal: a matrix of int8 that is split in two planes is the same matrix, bit
// for bit, in everything that reads it, and its upper plane alone gives the
// products that it stands for. Method: every instruction set, every number of
// rows in a panel and every edge of a tile; products of the upper plane against
// exact integers.
#include "kernels/cpu/nibble_planes.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/float_types.h"
#include "kernels/base/random_floats.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/quantized_activations.h"
#include "kernels/quant/ggml_types.h"

namespace onegrid::cpu {
namespace {

using kernels::Isa;
using kernels::RandomFloats;
using kernels::ThreadPool;
using Storage = PackedLinear::Storage;

// Q8_0 with all codes, -128 too, and scales from 2^-24 (not a normal f16) to
// 2^15, of either sign.
std::vector<uint8_t> Blocks(int64_t n, int64_t k, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> blocks;
  for (int64_t i = 0; i < n * k / kLinearGroup; ++i) {
    const uint32_t scale =
        random() % 5 == 0 ? 1 + random() % 0x77FF : 0x2000 + random() % 0x800;
    blocks.push_back(static_cast<uint8_t>(scale));
    blocks.push_back(static_cast<uint8_t>(scale >> 8 | (random() % 2) << 7));
    for (int j = 0; j < kLinearGroup; ++j) {
      blocks.push_back(static_cast<uint8_t>(random()));
    }
  }
  return blocks;
}

PackedLinear Pack(const std::vector<uint8_t>& blocks, int64_t n, int64_t k,
                  Storage storage, ThreadPool& pool) {
  return *PackedLinear::FromBlocks(quant::GgmlType::kQ8_0, blocks, n, k, pool,
                                   nullptr, storage);
}

TEST(NibblePlanesTest, SplitsEachByteAndJoinsItAgain) {
  constexpr int64_t kGroups = 3;
  std::vector<uint8_t> tile(kGroups * kInt8GroupBytes), joined(tile.size());
  for (size_t i = 0; i < tile.size(); ++i) {
    tile[i] = static_cast<uint8_t>(i * 37 + i / 256);
  }
  std::vector<uint8_t> upper(kGroups * kUpperGroupBytes),
      lower(kGroups * kLowerGroupBytes);
  SplitTile(tile.data(), kGroups, upper.data(), lower.data());
  for (int64_t g = 0; g < kGroups; ++g) {
    const uint8_t* from = tile.data() + g * kInt8GroupBytes;
    const uint8_t* up = upper.data() + g * kUpperGroupBytes;
    const uint8_t* low = lower.data() + g * kLowerGroupBytes;
    for (int64_t r = 0; r < kTileRows; ++r) {
      for (int64_t k = 0; k < kLinearGroup; ++k) {
        const int byte = from[64 * (k / 4) + 4 * r + k % 4];
        const int64_t at = 64 * (k / 8) + 4 * r + k % 4;
        const int shift = k % 8 < 4 ? 0 : 4;
        EXPECT_EQ(up[at] >> shift & 15, byte >> 4);
        EXPECT_EQ(low[at] >> shift & 15, byte & 15);
      }
    }
    for (int64_t i = 0; i < 2 * kTileRows; ++i) {
      EXPECT_EQ(up[kLowerGroupBytes + i], from[2 * kLowerGroupBytes + i]);
    }
  }
  JoinTile({upper.data(), lower.data()}, kGroups, joined.data());
  EXPECT_EQ(joined, tile);
}

TEST(NibblePlanesTest, ASplitMatrixHasTheSameRowsAndBytes) {
  ThreadPool pool(2);
  const int64_t n = 37, k = 96;
  const std::vector<uint8_t> blocks = Blocks(n, k, 1);
  const PackedLinear whole = Pack(blocks, n, k, Storage::kWhole, pool);
  const PackedLinear split = Pack(blocks, n, k, Storage::kSplit, pool);
  EXPECT_FALSE(whole.split());
  EXPECT_TRUE(split.split());
  EXPECT_EQ(split.bytes(), whole.bytes());
  std::vector<float> row(k), same(k);
  for (int64_t r = 0; r < n; ++r) {
    whole.DequantizeRow(r, absl::MakeSpan(row));
    split.DequantizeRow(r, absl::MakeSpan(same));
    EXPECT_EQ(row, same) << r;
  }
}

TEST(NibblePlanesTest, BothPartsOfAWeightSumUpToIt) {
  ThreadPool pool(2);
  const int64_t k = 96;
  const PackedLinear w =
      Pack(Blocks(kTileRows, k, 3), kTileRows, k, Storage::kSplit, pool);
  std::vector<float> row(k);
  float upper[kLinearGroup * kTileRows], lower[kLinearGroup * kTileRows];
  for (int64_t g = 0; g < k / kLinearGroup; ++g) {
    const TileBytes group = {w.tiles() + g * kUpperGroupBytes,
                             w.lower() + g * kLowerGroupBytes};
    ExpandUpper(group, upper);
    ExpandLower(group, lower);
    for (int64_t r = 0; r < kTileRows; ++r) {
      w.DequantizeRow(r, absl::MakeSpan(row));
      uint16_t bits;
      std::memcpy(&bits, group.at + kLowerGroupBytes + 2 * r, sizeof(bits));
      const float step = std::abs(kernels::F16ToFloat(bits));
      for (int64_t i = 0; i < kLinearGroup; ++i) {
        const int64_t at = i * kTileRows + r;
        EXPECT_EQ(upper[at] + lower[at],
                  row[static_cast<size_t>(g * kLinearGroup + i)]);
        EXPECT_LE(std::abs(lower[at]), kLowerMiddle * step);
      }
    }
  }
}

TEST(NibblePlanesTest, OnlyInt8IsSplit) {
  ThreadPool pool(1);
  const std::vector<uint8_t> zeros(18 * 16);
  const auto w = PackedLinear::FromBlocks(quant::GgmlType::kQ4_0, zeros, 16, 32,
                                          pool, nullptr, Storage::kSplit);
  ASSERT_TRUE(w.ok()) << w.status();
  EXPECT_FALSE(w->split());
  EXPECT_EQ(w->bytes(), kInt4GroupBytes);
}

TEST(NibblePlanesTest, AScaleThatIsNotFiniteIsAnInvalidArgument) {
  ThreadPool pool(2);
  std::vector<uint8_t> blocks = Blocks(40, 64, 1);
  blocks[34 * 79 + 1] |= 0x7C;
  const absl::Status status =
      PackedLinear::FromBlocks(quant::GgmlType::kQ8_0, blocks, 40, 64, pool,
                               nullptr, Storage::kSplit)
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("block 79"), absl::string_view::npos)
      << status;
}

class SplitLinearTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) GTEST_SKIP() << "no such processor";
  }
  ThreadPool pool_{3};
};

// Tiles of 22 and 46 KB: one is copied, one is not.
TEST_P(SplitLinearTest, OneTileIsThatOfAllHoweverLarge) {
  const int64_t n = 40, m = 2;
  for (const int64_t k : {1312, 2720}) {
    const std::vector<uint8_t> blocks = Blocks(n, k, 1);
    const std::vector<float> x = RandomFloats(m * k, 2);
    QuantizedActivations codes;
    QuantizeActivations(x, m, k, CodeBits::k16, &codes, pool_, GetParam());
    for (const Storage storage : {Storage::kWhole, Storage::kSplit}) {
      const PackedLinear w = Pack(blocks, n, k, storage, pool_);
      std::vector<float> all(static_cast<size_t>(m * n)), tile(m * 16);
      Linear(codes, w, all.data(), pool_, GetParam());
      FetchTile(w, 1);
      LinearTile(codes, w, 1, tile.data());
      for (int64_t row = 0; row < m; ++row) {
        EXPECT_EQ(std::vector<float>(tile.begin() + 16 * row,
                                     tile.begin() + 16 * (row + 1)),
                  std::vector<float>(all.begin() + row * n + 16,
                                     all.begin() + row * n + 32));
      }
    }
  }
}

TEST_P(SplitLinearTest, ProductsAreThoseOfTheWholeBitForBit) {
  for (const int64_t n : {1, 16, 33, 161}) {
    const int64_t k = 288;
    const std::vector<uint8_t> blocks = Blocks(n, k, 1);
    const PackedLinear whole = Pack(blocks, n, k, Storage::kWhole, pool_);
    const PackedLinear split = Pack(blocks, n, k, Storage::kSplit, pool_);
    for (const int64_t m : {1, 3, 12, 13, 100}) {
      const std::vector<float> x = RandomFloats(m * k, 2);
      std::vector<float> out(static_cast<size_t>(m * n)), same(out);
      for (const CodeBits bits : {CodeBits::k8, CodeBits::k16}) {
        QuantizedActivations codes;
        QuantizeActivations(x, m, k, bits, &codes, pool_, GetParam());
        Linear(codes, whole, out.data(), pool_, GetParam());
        Linear(codes, split, same.data(), pool_, GetParam());
        EXPECT_EQ(out, same) << m << " " << n;
        std::vector<float> tile(static_cast<size_t>(m * 16)), same_tile(tile);
        const int64_t last = whole.tile_count() - 1;
        LinearTile(codes, whole, last, tile.data());
        LinearTile(codes, split, last, same_tile.data());
        EXPECT_EQ(tile, same_tile);
      }
      LinearF32(x.data(), m, whole, out.data(), pool_, GetParam());
      LinearF32(x.data(), m, split, same.data(), pool_, GetParam());
      EXPECT_EQ(out, same) << m << " " << n;
    }
    std::vector<float> norms(static_cast<size_t>(n)), same(norms);
    RowNorms(whole, norms.data(), pool_, GetParam());
    RowNorms(split, same.data(), pool_, GetParam());
    EXPECT_EQ(norms, same);
  }
}

// What the upper plane of row r and column k of a group says.
int UpperCode(const uint8_t* group, int64_t r, int64_t k) {
  const int byte = group[64 * (k / 8) + 4 * r + k % 4];
  return 2 * (byte >> (k % 8 < 4 ? 0 : 4) & 15) - 15;
}

float UpperScale(const uint8_t* group, int64_t r) {
  // Powers of two and twice 3 / 4 of one, which bits of f16 are easy to tell.
  return group[kLowerGroupBytes + 2 * r + 1] == 0x2C ? 0x1p-4f : 0x1.8p-3f;
}

// The upper plane of a tile: any codes, or all of one value.
std::vector<uint8_t> UpperTile(int64_t groups, int code) {
  std::mt19937 random(7);
  std::vector<uint8_t> tile;
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t i = 0; i < kLowerGroupBytes; ++i) {
      tile.push_back(code < 0 ? static_cast<uint8_t>(random())
                              : static_cast<uint8_t>(code | code << 4));
    }
    for (int64_t r = 0; r < kTileRows; ++r) {
      tile.push_back(0);
      tile.push_back(random() % 2 == 0 ? 0x2C : 0x32);
    }
  }
  return tile;
}

// The excess of the errors of products of x [m, k] with a tile over (G + 4) u
// times the sum of the magnitudes of the terms of G groups: linear_test.cc.
double WorstExcess(const QuantizedActivations& x,
                   const std::vector<uint8_t>& tile) {
  std::vector<float> out(static_cast<size_t>(x.m() * kTileRows));
  x.BeginProducts();
  x.kernels().odd_int4_tile(x.panels().data(),
                            static_cast<int64_t>(x.panels().size()),
                            {tile.data()}, out.data(), kTileRows);
  x.EndProducts();
  double worst = -1;
  for (int64_t m = 0; m < x.m(); ++m) {
    for (int64_t r = 0; r < kTileRows; ++r) {
      double sum = 0, magnitude = 0;
      for (int64_t g = 0; g < x.groups(); ++g) {
        const uint8_t* group = tile.data() + g * kUpperGroupBytes;
        int64_t dot = 0;
        for (int64_t k = 0; k < kLinearGroup; ++k) {
          dot += x.CodeAt(m, kLinearGroup * g + k) * UpperCode(group, r, k);
        }
        const double term =
            static_cast<double>(dot) * UpperScale(group, r) * x.ScaleAt(m, g);
        sum += term;
        magnitude += std::abs(term);
      }
      const double error =
          std::abs(out[static_cast<size_t>(m * kTileRows + r)] - sum);
      const double bound =
          static_cast<double>(x.groups() + 4) * 0x1p-24 * magnitude;
      worst = std::max(worst, error - bound);
    }
  }
  return worst;
}

TEST_P(SplitLinearTest, TheUpperPlanesProductsAreExactButForSums) {
  for (const int64_t groups : {1, 2, 20, 35}) {
    for (int64_t m = 1; m <= 20; ++m) {
      QuantizedActivations x;
      QuantizeActivations(RandomFloats(m * groups * 32, 3), m, groups * 32,
                          CodeBits::k8, &x, pool_, GetParam());
      x.SetBias(OddInt4Layout::kBias);
      EXPECT_LE(WorstExcess(x, UpperTile(groups, -1)), 0) << groups << " " << m;
    }
  }
}

TEST_P(SplitLinearTest, ExtremeUpperCodesDoNotSaturate) {
  for (const int64_t m : {1, 5, 20}) {
    for (const float value : {-3.0f, 3.0f}) {
      QuantizedActivations x;
      QuantizeActivations(
          std::vector<float>(static_cast<size_t>(m * 64), value), m, 64,
          CodeBits::k8, &x, pool_, GetParam());
      x.SetBias(OddInt4Layout::kBias);
      for (const int code : {0, 15}) {
        EXPECT_LE(WorstExcess(x, UpperTile(2, code)), 0) << m << " " << code;
      }
    }
  }
}

TEST_P(SplitLinearTest, OneStepInOneUpperCodeExceedsTheBound) {
  QuantizedActivations x;
  QuantizeActivations(std::vector<float>(640, 1.0f), 1, 640, CodeBits::k8, &x,
                      pool_, GetParam());
  x.SetBias(OddInt4Layout::kBias);
  std::vector<uint8_t> tile = UpperTile(20, -1);
  ASSERT_LE(WorstExcess(x, tile), 0);
  std::vector<float> out(kTileRows), other(kTileRows);
  const auto multiply = [&](std::vector<float>& to) {
    x.kernels().odd_int4_tile(x.panels().data(), 1, {tile.data()}, to.data(),
                              kTileRows);
  };
  multiply(out);
  tile[19 * kUpperGroupBytes + 4 * 9] ^= 1;
  multiply(other);
  // By 2 steps of at least 1 / 16 in a sum of at most 640 * 15 * 3 / 16.
  EXPECT_GE(std::abs(out[9] - other[9]), 2.0 / 16 * 0.99);
  EXPECT_GT(2.0 / 16, (20 + 4) * 0x1p-24 * 640 * 15 * 3 / 16);
  EXPECT_EQ(out[8], other[8]);
}

INSTANTIATE_TEST_SUITE_P(Isas, SplitLinearTest,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

}  // namespace
}  // namespace onegrid::cpu
