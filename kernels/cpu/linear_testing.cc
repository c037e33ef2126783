#include "kernels/cpu/linear_testing.h"

#include <random>
#include <utility>

#include "gtest/gtest.h"
#include "kernels/base/float_types.h"
#include "kernels/base/random_floats.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid_blocks.h"

namespace onegrid::cpu {

CodeRange CodesOf(const quant::Grid& grid) {
  if (&grid == &quant::kInt2G64) return {-1, 2};
  if (&grid == &quant::kInt4G32) return {-8, 7};
  return {-128, 127};
}

quant::GridMatrix Random(const quant::Grid& grid, int64_t n, int64_t k,
                         uint32_t seed) {
  std::mt19937 random(seed);
  quant::GridMatrix w{n, k, {}, {}, &grid};
  const auto [least, most] = CodesOf(grid);
  for (int64_t i = 0; i < n * k; ++i) {
    w.codes.push_back(static_cast<int8_t>(
        least +
        static_cast<int>(random() % static_cast<uint32_t>(most - least + 1))));
  }
  for (int64_t i = 0; i < n * k / grid.group; ++i) {
    w.scales.push_back(
        quant::SnapScale(0.01f * static_cast<float>(1 + random() % 9)));
  }
  return w;
}

std::vector<uint8_t> Blocks(const quant::GridMatrix& w) {
  quant::GridMatrix zero = w;
  for (int8_t& code : zero.codes) code = 0;
  if (w.grid == &quant::kInt4G32) return *quant::PackBlocks(w);
  std::vector<uint8_t> blocks = *quant::PackBlocks(zero);
  const size_t group = static_cast<size_t>(w.grid->group);
  const size_t block_bytes = blocks.size() / (w.codes.size() / group);
  for (size_t i = 0; i < w.codes.size(); ++i) {
    uint8_t* block = blocks.data() + i / group * block_bytes + 2;
    if (w.grid == &quant::kInt8G32) {
      block[i % group] = static_cast<uint8_t>(w.codes[i]);
      continue;
    }
    uint8_t& four = block[i % group / 4];
    const int shift = static_cast<int>(2 * (i % 4));
    four = static_cast<uint8_t>((four & ~(3 << shift)) |
                                ((w.codes[i] + 1) << shift));
  }
  return blocks;
}

PackedLinear Pack(const quant::GridMatrix& w, kernels::ThreadPool& pool) {
  auto packed = PackedLinear::FromBlocks(quant::BlockType(*w.grid), Blocks(w),
                                         w.rows, w.cols, pool);
  EXPECT_TRUE(packed.ok()) << packed.status();
  return *std::move(packed);
}

std::vector<float> RandomBf16(int64_t count, std::vector<uint8_t>* bytes) {
  std::vector<float> values = kernels::RandomFloats(count, 8);
  for (float& value : values) {
    const uint16_t bits = kernels::FloatToBf16(value);
    value = kernels::Bf16ToFloat(bits);
    bytes->push_back(static_cast<uint8_t>(bits));
    bytes->push_back(static_cast<uint8_t>(bits >> 8));
  }
  return values;
}

}  // namespace onegrid::cpu
