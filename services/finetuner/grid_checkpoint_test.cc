#include "services/finetuner/grid_checkpoint.h"

#include <cstring>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"
#include "services/finetuner/tiny_model.h"
#include "services/model/gguf_writer.h"

namespace onegrid::finetuner {
namespace {

using quant::GgmlType;

constexpr char kGate[] = "blk.1.ffn_gate.weight";
constexpr char kEmbedding[] = "token_embd.weight";

// A tensor of the tiny model as a file holds it.
struct Stored {
  GgmlType type;
  std::vector<int64_t> dims;
  std::vector<uint8_t> bytes;
};

std::vector<uint8_t> BytesOf(const std::vector<float>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

Stored Store(const quant::GridMatrix& matrix) {
  return {quant::BlockType(*matrix.grid),
          {matrix.cols, matrix.rows},
          *quant::PackBlocks(matrix)};
}

// Random values on `grid`, of the shape of `like`.
quant::GridMatrix OnGrid(const quant::GridMatrix& like,
                         const quant::Grid& grid) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> values(like.codes.size());
  for (float& value : values) value = normal(random);
  return *quant::EncodeMatrix(values, like.rows, like.cols, grid);
}

class GridCheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    expected_ = MakeTinyCheckpoint(1);
    // Every grid: linears in turn, where the groups fit (ffn_down has 96
    // inputs), and a 4-bit embedding.
    const quant::Grid* grids[] = {&quant::kInt4G32, &quant::kInt2G64,
                                  &quant::kInt8G32};
    for (size_t i = 0; i < expected_.linears.size(); ++i) {
      quant::GridMatrix& linear = expected_.linears[i];
      const quant::Grid& grid = *grids[i % 3];
      if (linear.cols % grid.group == 0) linear = OnGrid(linear, grid);
      tensors_[expected_.specs[i].gguf_name] = Store(linear);
    }
    expected_.embedding = OnGrid(expected_.embedding, quant::kInt4G32);
    tensors_[kEmbedding] = Store(expected_.embedding);
    const auto norms = model::GemmaNorms(expected_.config);
    for (size_t i = 0; i < norms.size(); ++i) {
      tensors_[norms[i].gguf_name] = {
          GgmlType::kF32, {norms[i].size}, BytesOf(expected_.norms[i])};
    }
  }

  absl::StatusOr<GridCheckpoint> Load() {
    const model::GemmaConfig& c = expected_.config;
    model::GgufWriter writer;
    writer.Set("general.architecture", std::string("gemma3"));
    const std::pair<const char*, int64_t> sizes[] = {
        {"context_length", c.context_length},
        {"embedding_length", c.hidden},
        {"block_count", c.layer_count()},
        {"feed_forward_length", c.layers[0].ff},
        {"attention.head_count", c.heads},
        {"attention.head_count_kv", c.layers[0].kv_heads},
        {"attention.key_length", c.layers[0].head_dim},
        {"attention.value_length", c.layers[0].head_dim},
        {"attention.sliding_window", c.sliding_window}};
    for (const auto& [key, value] : sizes) {
      writer.Set(absl::StrCat("gemma3.", key), static_cast<uint32_t>(value));
    }
    writer.Set("gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
    writer.Set("gemma3.rope.freq_base", 1e6f);
    writer.Set("tokenizer.ggml.bos_token_id", uint32_t{2});
    writer.Set("tokenizer.ggml.eos_token_id", uint32_t{1});
    writer.Set("tokenizer.ggml.padding_token_id", uint32_t{0});
    for (const auto& [name, tensor] : tensors_) {
      const absl::Status status =
          writer.AddTensor(name, tensor.type, tensor.dims, tensor.bytes);
      if (!status.ok()) return status;
    }
    const std::string path = testing::TempDir() + "/grid_checkpoint.gguf";
    absl::Status status = writer.WriteTo(path);
    if (!status.ok()) return status;
    const auto file = model::GgufFile::Open(path);
    if (!file.ok()) return file.status();
    return LoadGridCheckpoint(**file);
  }

  void ExpectRefused(const std::string& tensor, const std::string& reason) {
    const absl::Status status = Load().status();
    EXPECT_EQ(common::ErrorReason(status), reason) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), tensor)) << status;
  }

  GridCheckpoint expected_;
  std::map<std::string, Stored> tensors_;
};

void ExpectSame(const quant::GridMatrix& found,
                const quant::GridMatrix& expected, const std::string& name) {
  EXPECT_EQ(found.grid, expected.grid) << name;
  EXPECT_EQ(found.rows, expected.rows) << name;
  EXPECT_EQ(found.cols, expected.cols) << name;
  EXPECT_EQ(found.codes, expected.codes) << name;
  EXPECT_EQ(found.scales, expected.scales) << name;
}

TEST_F(GridCheckpointTest, EveryMatrixIsReadOnItsOwnGrid) {
  const auto found = Load();
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->linears.size(), expected_.linears.size());
  for (size_t i = 0; i < found->linears.size(); ++i) {
    ExpectSame(found->linears[i], expected_.linears[i],
               found->specs[i].gguf_name);
  }
  ExpectSame(found->embedding, expected_.embedding, kEmbedding);
  EXPECT_EQ(found->norms, expected_.norms);
}

TEST_F(GridCheckpointTest, TypesOfNoGridAreRefused) {
  Stored& gate = tensors_[kGate];
  const Stored before = gate;
  gate = {GgmlType::kF32, {64, 96}, BytesOf(std::vector<float>(64 * 96))};
  ExpectRefused(kGate, "NOT_ON_GRID");
  gate = before;
  Stored& embedding = tensors_[kEmbedding];
  embedding.type = GgmlType::kF16;
  embedding.bytes.resize(2 * 64 * kTinyVocab);
  ExpectRefused(kEmbedding, "NOT_ON_GRID");
}

TEST_F(GridCheckpointTest, NormsOfAnotherTypeAreRefused) {
  tensors_["output_norm.weight"] = {
      GgmlType::kF16, {64}, std::vector<uint8_t>(2 * 64)};
  ExpectRefused("output_norm.weight", "NOT_ON_GRID");
}

TEST_F(GridCheckpointTest, CodesAndScalesOffTheGridAreRefused) {
  tensors_[kGate] = Store(OnGrid(expected_.linears[11], quant::kInt2G64));
  ASSERT_EQ(expected_.specs[11].gguf_name, kGate);
  ASSERT_TRUE(Load().ok());
  std::vector<uint8_t>& bytes = tensors_[kGate].bytes;
  bytes[2] |= 3;  // The code 2, which a Q2_0 block can hold.
  ExpectRefused(kGate, "CORRUPT_FILE");
  bytes[2] &= 0xFC;
  bytes[1] = 0x7C;  // A scale of infinity.
  ExpectRefused(kGate, "CORRUPT_FILE");
}

}  // namespace
}  // namespace onegrid::finetuner
