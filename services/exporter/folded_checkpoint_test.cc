// Folded checkpoints are outside input: what does not fit is refused by name.
#include "services/exporter/folded_checkpoint.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/exporter/grid_model.h"
#include "services/exporter/test_model.h"

namespace onegrid::exporter {
namespace {

constexpr char kUp[] = "blk.0.ffn_up.weight";      // int2_g64
constexpr char kDown[] = "blk.0.ffn_down.weight";  // int4_g32
constexpr char kEmbedding[] = "token_embd.weight";

class FoldedCheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    base_ = ImportTestModel();
    mixed_ = FoldTestModelMixed(base_);
    path_ = TestPath("folded.safetensors");
  }

  absl::StatusOr<std::unique_ptr<GridModel>> Open(const TestFolded& folded) {
    WriteTestFolded(folded, path_);
    return GridModel::Open(base_, path_);
  }

  // Expects the mixed checkpoint with `damage` done to it to be refused, the
  // message holding `what`.
  void ExpectRefused(const std::function<void(TestFolded*)>& damage,
                     const std::string& what) {
    TestFolded folded = mixed_;
    damage(&folded);
    const absl::Status status = Open(folded).status();
    EXPECT_EQ(common::ErrorReason(status), "CORRUPT_FILE") << what;
    EXPECT_TRUE(absl::StrContains(status.message(), what)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), path_)) << status;
  }

  std::string base_;
  TestFolded mixed_;
  std::string path_;
};

TEST_F(FoldedCheckpointTest, HoldsManyGridsAnEmbeddingAndNorms) {
  const auto model = Open(mixed_);
  ASSERT_TRUE(model.ok()) << model.status();
  for (const model::LinearSpec& spec : (*model)->linears()) {
    const quant::GridMatrix& expected = mixed_.matrices[spec.gguf_name];
    const auto found = (*model)->Linear(spec);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->grid, expected.grid) << spec.gguf_name;
    EXPECT_EQ(&(*model)->GridOf(spec), expected.grid);
    EXPECT_EQ(found->codes, expected.codes);
    EXPECT_EQ(found->scales, expected.scales);
  }
  const auto embedding = (*model)->Embedding();
  ASSERT_TRUE(embedding.ok()) << embedding.status();
  EXPECT_EQ(embedding->grid, &quant::kInt4G32);
  EXPECT_EQ(embedding->codes, mixed_.matrices[kEmbedding].codes);
  EXPECT_EQ((*model)->FindNorm("blk.0.ffn_norm.weight")->Values(),
            mixed_.norms["blk.0.ffn_norm.weight"]);
}

// int4 codes are int8 codes in groups of as many: a reader that took them for
// that would have the right values and twice the bytes.
TEST_F(FoldedCheckpointTest, AnEmbeddingOfNoNamedGridIsOnInt4) {
  TestFolded folded = FoldTestModel(base_);
  folded.matrices[kEmbedding] = mixed_.matrices[kEmbedding];
  EXPECT_EQ(folded.grids, "");
  const auto model = Open(folded);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->Embedding()->grid, &quant::kInt4G32);
}

TEST_F(FoldedCheckpointTest, WhatIsNotThereStaysTheBases) {
  const auto base = GridModel::Open(base_, "");
  const auto model = Open(FoldTestModel(base_));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->Embedding()->codes, (*base)->Embedding()->codes);
  for (const GridNorm& norm : (*base)->norms()) {
    EXPECT_EQ((*model)->FindNorm(norm.spec.gguf_name)->Values(), norm.Values());
  }
}

TEST_F(FoldedCheckpointTest, GridsThatAreNoneAreRefused) {
  const auto replace = [](const char* from, const char* to) {
    return [=](TestFolded* folded) {
      folded->grids.replace(folded->grids.find(from), std::string(from).size(),
                            to);
    };
  };
  ExpectRefused(replace("int2_g64", "int3_g64"), "int3_g64");
  ExpectRefused(replace("\"int2_g64\"", "2"), "a JSON number");
  const std::string deep =
      std::string(1000000, '[') + std::string(1000000, ']');
  ExpectRefused(replace("\"int2_g64\"", deep.c_str()), "a JSON array");
  ExpectRefused(replace("ffn_up", "ffn_upp"), "blk.0.ffn_upp.weight");
  ExpectRefused(replace("blk.0.ffn_up.weight", "output_norm.weight"),
                "output_norm.weight");
  ExpectRefused([](TestFolded* folded) { folded->grids = "[]"; }, "grids");
  ExpectRefused([](TestFolded* folded) { folded->grids.pop_back(); }, "grids");
}

TEST_F(FoldedCheckpointTest, GroupsThatDoNotFitAreRefused) {
  // Without the metadata an int2_g64 matrix has half the scales it should.
  ExpectRefused([](TestFolded* folded) { folded->grids.clear(); },
                "F32 [96, 1], expected F32 [96, 2]");
  // 96 inputs are no multiple of 64.
  ExpectRefused(
      [](TestFolded* folded) {
        folded->grids.insert(1,
                             absl::StrCat("\"", kDown, "\": \"int2_g64\", "));
      },
      kDown);
  ExpectRefused(
      [](TestFolded* folded) { folded->matrices[kUp].scales.resize(3 * 96); },
      kUp);
  ExpectRefused(
      [](TestFolded* folded) {
        quant::GridMatrix& w = folded->matrices[kDown];
        std::swap(w.rows, w.cols);
      },
      kDown);
}

TEST_F(FoldedCheckpointTest, MissingAndForeignTensorsAreRefused) {
  ExpectRefused([](TestFolded* folded) { folded->matrices.erase(kUp); }, kUp);
  // Its grid is in the metadata, so it should be there.
  ExpectRefused([](TestFolded* folded) { folded->matrices.erase(kEmbedding); },
                kEmbedding);
  ExpectRefused(
      [](TestFolded* folded) {
        folded->matrices["blk.1.ffn_up.weight"] = folded->matrices[kUp];
      },
      "blk.1.ffn_up.weight");
  ExpectRefused(
      [](TestFolded* folded) { folded->norms["blk.1.ffn_norm.weight"] = {1}; },
      "blk.1.ffn_norm.weight");
}

TEST_F(FoldedCheckpointTest, NormsThatDoNotFitAreRefused) {
  ExpectRefused(
      [](TestFolded* folded) { folded->norms["output_norm.weight"] = {1, 2}; },
      "output_norm.weight");
  ExpectRefused(
      [](TestFolded* folded) {
        folded->norms["blk.0.ffn_norm.weight"][7] =
            std::numeric_limits<float>::infinity();
      },
      "blk.0.ffn_norm.weight");
}

TEST_F(FoldedCheckpointTest, CodesAndScalesOffTheGridAreRefused) {
  const auto linear_status = [this](const TestFolded& folded,
                                    const std::string& name) {
    const auto model = Open(folded);
    EXPECT_TRUE(model.ok()) << model.status();
    return name == kEmbedding
               ? (*model)->Embedding().status()
               : (*model)->Linear(*(*model)->FindLinear(name)).status();
  };
  const std::pair<const char*, int8_t> codes[] = {
      {kUp, 2},    {kUp, -2},       {kDown, 8},
      {kDown, -9}, {kEmbedding, 8}, {"blk.0.attn_q.weight", -128}};
  for (const auto& [name, code] : codes) {
    TestFolded folded = mixed_;
    folded.matrices[name].codes.back() = code;
    const absl::Status status = linear_status(folded, name);
    EXPECT_EQ(common::ErrorReason(status), "CORRUPT_FILE") << name;
    EXPECT_TRUE(absl::StrContains(status.message(), name)) << status;
  }
  // The last has 11 significant bits: f16 holds it, bf16 does not.
  for (const float scale : {0.f, -1.f, 1e-9f, 1e6f, 1.0009765625f}) {
    TestFolded folded = mixed_;
    folded.matrices[kUp].scales[3] = scale;
    EXPECT_EQ(common::ErrorReason(linear_status(folded, kUp)), "CORRUPT_FILE")
        << scale;
  }
  for (const float scale : {0.1f, 1e6f, std::nanf("")}) {
    TestFolded folded = mixed_;
    folded.matrices[kEmbedding].scales[3] = scale;
    EXPECT_EQ(common::ErrorReason(linear_status(folded, kEmbedding)),
              "CORRUPT_FILE")
        << scale;
  }
}

TEST_F(FoldedCheckpointTest, TruncatedFilesAreRefused) {
  WriteTestFolded(mixed_, path_);
  const std::string bytes = *common::ReadFile(path_);
  for (const size_t size : {size_t{0}, size_t{7}, size_t{100}, bytes.size() / 2,
                            bytes.size() - 1}) {
    ASSERT_TRUE(common::WriteFileAtomic(path_, bytes.substr(0, size)).ok());
    EXPECT_FALSE(GridModel::Open(base_, path_).ok()) << size;
  }
}

}  // namespace
}  // namespace onegrid::exporter
