#include "services/exporter/export_files.h"

#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/quant/ggml_types.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/exporter/equivalence.h"
#include "services/exporter/grid_model.h"
#include "services/exporter/test_model.h"
#include "services/model/adapter.h"
#include "services/model/gguf_reader.h"
#include "services/model/safetensors.h"
#include "services/model/safetensors_folder.h"

namespace onegrid::exporter {
namespace {

class ExportFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    inputs_.base = ImportTestModel();
    const TestTuned tuned = WriteTestTuned(inputs_.base);
    inputs_.folded = tuned.folded;
    inputs_.adapter = tuned.adapter;
    inputs_.adapter_config = tuned.adapter_config;
    inputs_.base_name = "tiny";
    out_ = TestPath("out");
    ASSERT_TRUE(common::MakeFolder(out_).ok());
  }

  // Changes the last byte of a file, which belongs to its last tensor.
  void DamageLastByte(const std::string& path) {
    std::string bytes = *common::ReadFile(path);
    bytes.back() ^= 1;
    ASSERT_TRUE(common::WriteFileAtomic(path, bytes).ok());
  }

  ExportInputs inputs_;
  std::string out_;
};

TEST_F(ExportFilesTest, WritesEveryFormatBitForBit) {
  const auto outputs = ExportFiles(inputs_, out_, {});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  ASSERT_EQ(outputs->formats.size(), 4);
  const v1::EquivalenceReport& report = outputs->equivalence;
  // 15 tensors of the GGUF and as many of the folder; 7 pairs and alpha twice.
  EXPECT_EQ(report.tensors(), 15 + 15 + 15 + 15);
  EXPECT_EQ(report.tensors_bit_exact() + report.differing_size(),
            report.tensors());
  // Only a norm may differ: w - 1 is not always exact in f32.
  for (const auto& difference : report.differing()) {
    EXPECT_EQ(difference.artifact(), "compressed-tensors");
    EXPECT_TRUE(absl::StrContains(difference.tensor(), "norm"));
    EXPECT_LT(difference.max_abs_error(), 1e-7);
  }
  EXPECT_EQ(report.checkpoint_sha256(), *common::Sha256OfFile(inputs_.folded));
  for (const WrittenFormat& written : outputs->formats) {
    for (const std::string& file : written.files) {
      EXPECT_TRUE(
          common::ReadFile(absl::StrCat(written.folder, "/", file)).ok())
          << file;
    }
  }
}

TEST_F(ExportFilesTest, CodesAreTheFoldedOnesNotTheBases) {
  ASSERT_TRUE(ExportFiles(inputs_, out_, {}).ok());
  const auto merged =
      GridModel::Open(absl::StrCat(out_, "/gguf/model.gguf"), "");
  const auto folded = GridModel::Open(inputs_.base, inputs_.folded);
  const auto base = GridModel::Open(inputs_.base, "");
  for (const auto& spec : (*base)->linears()) {
    EXPECT_EQ((*merged)->Linear(spec)->codes, (*folded)->Linear(spec)->codes);
    EXPECT_NE((*merged)->Linear(spec)->codes, (*base)->Linear(spec)->codes);
  }
}

TEST_F(ExportFilesTest, AMixedPlanIsWrittenBitForBit) {
  const TestFolded folded = FoldTestModelMixed(inputs_.base);
  WriteTestFolded(folded, inputs_.folded);
  inputs_.formats = {v1::GGUF, v1::COMPRESSED_TENSORS};
  const auto outputs = ExportFiles(inputs_, out_, {});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_EQ(outputs->equivalence.tensors(), 15 + 15);

  const auto gguf =
      model::GgufFile::Open(absl::StrCat(out_, "/gguf/model.gguf"));
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  const std::pair<const char*, quant::GgmlType> types[] = {
      {"blk.0.attn_q.weight", quant::GgmlType::kQ8_0},
      {"blk.0.attn_v.weight", quant::GgmlType::kQ4_0},
      {"blk.0.ffn_up.weight", quant::GgmlType::kQ2_0},
      {"token_embd.weight", quant::GgmlType::kQ4_0},
      {"blk.0.ffn_norm.weight", quant::GgmlType::kF32}};
  for (const auto& [name, type] : types) {
    EXPECT_EQ((*gguf)->Find(name)->type, type) << name;
  }
  // Weights of the linears: 12,288 on int4_g32 and as many on int2_g64, 6,144
  // on int8_g32.
  EXPECT_EQ(*(*gguf)->GetU32("general.file_type"), 2);
  const auto merged = GridModel::Open((*gguf)->path(), "");
  ASSERT_TRUE(merged.ok()) << merged.status();
  for (const auto& spec : (*merged)->linears()) {
    const quant::GridMatrix& expected = folded.matrices.at(spec.gguf_name);
    EXPECT_EQ((*merged)->Linear(spec)->codes, expected.codes);
    EXPECT_EQ((*merged)->Linear(spec)->scales, expected.scales);
  }
  EXPECT_EQ((*merged)->FindNorm("blk.0.ffn_norm.weight")->Values(),
            folded.norms.at("blk.0.ffn_norm.weight"));
}

TEST_F(ExportFilesTest, FileTypeIsThatOfMostWeights) {
  TestFolded folded = FoldTestModelMixed(inputs_.base);
  inputs_.formats = {v1::GGUF};
  // o is 4,096 weights; on int8_g32 it leaves int2_g64 with the most.
  quant::GridMatrix& o = folded.matrices["blk.0.attn_output.weight"];
  o.grid = &quant::kInt8G32;
  folded.grids.insert(1, R"("blk.0.attn_output.weight": "int8_g32", )");
  WriteTestFolded(folded, inputs_.folded);
  ASSERT_TRUE(ExportFiles(inputs_, out_, {}).ok());
  const auto gguf =
      model::GgufFile::Open(absl::StrCat(out_, "/gguf/model.gguf"));
  EXPECT_EQ(*(*gguf)->GetU32("general.file_type"), 41);
}

TEST_F(ExportFilesTest, EachGridHasAConfigGroupOfItsOwn) {
  const auto config = [this] {
    return nlohmann::json::parse(*common::ReadFile(absl::StrCat(
        out_, "/compressed_tensors/config.json")))["quantization_config"]
                                                  ["config_groups"];
  };
  inputs_.formats = {v1::COMPRESSED_TENSORS};
  ASSERT_TRUE(ExportFiles(inputs_, out_, {}).ok());
  ASSERT_EQ(config().size(), 1);
  EXPECT_EQ(config()["group_0"]["targets"].dump(), R"(["Linear"])");

  WriteTestFolded(FoldTestModelMixed(inputs_.base), inputs_.folded);
  ASSERT_TRUE(ExportFiles(inputs_, out_, {}).ok());
  ASSERT_EQ(config().size(), 3);
  const struct {
    int bits, group;
    std::vector<std::string> matched;
  } expected[] = {
      {8, 32, {"self_attn.k_proj", "self_attn.q_proj"}},
      {4, 32, {"mlp.down_proj", "self_attn.o_proj", "self_attn.v_proj"}},
      {2, 64, {"mlp.gate_proj", "mlp.up_proj"}}};
  for (int i = 0; i < 3; ++i) {
    const nlohmann::json group = config()[absl::StrCat("group_", i)];
    EXPECT_EQ(group["weights"]["num_bits"], expected[i].bits);
    EXPECT_EQ(group["weights"]["group_size"], expected[i].group);
    ASSERT_EQ(group["targets"].size(), expected[i].matched.size());
    for (size_t t = 0; t < group["targets"].size(); ++t) {
      const std::string target = group["targets"][t];
      ASSERT_EQ(target.substr(0, 3), "re:");
      EXPECT_TRUE(std::regex_match("model.layers.0." + expected[i].matched[t],
                                   std::regex(target.substr(3))))
          << target;
      EXPECT_FALSE(std::regex_match("model.layers.10." + expected[i].matched[t],
                                    std::regex(target.substr(3))))
          << target;
    }
  }
}

TEST_F(ExportFilesTest, AnotherGridInTheArtifactFailsLevelOne) {
  inputs_.formats = {v1::GGUF};
  ASSERT_TRUE(ExportFiles(inputs_, out_, {}).ok());
  WriteTestFolded(FoldTestModelMixed(inputs_.base), inputs_.folded);
  const auto grid = GridModel::Open(inputs_.base, inputs_.folded);
  v1::EquivalenceReport report;
  ASSERT_TRUE(CompareMergedGguf(**grid, absl::StrCat(out_, "/gguf/model.gguf"),
                                {}, &report)
                  .ok());
  // Five matrices and a norm.
  ASSERT_EQ(report.differing_size(), 6);
  EXPECT_TRUE(absl::StrContains(report.differing(0).reason(), "grids differ"));
}

TEST_F(ExportFilesTest, WritesTheSameBytesEachTime) {
  ASSERT_TRUE(ExportFiles(inputs_, out_, {}).ok());
  const std::string again = TestPath("again");
  ASSERT_TRUE(common::MakeFolder(again).ok());
  ASSERT_TRUE(ExportFiles(inputs_, again, {}).ok());
  for (const char* file :
       {"gguf/model.gguf", "compressed_tensors/model.safetensors",
        "compressed_tensors/config.json", "lora_gguf/adapter.gguf"}) {
    EXPECT_EQ(*common::Sha256OfFile(absl::StrCat(out_, "/", file)),
              *common::Sha256OfFile(absl::StrCat(again, "/", file)))
        << file;
  }
}

TEST_F(ExportFilesTest, EachFolderHasACardAndTheGgufAModelfile) {
  inputs_.max_shard_bytes = 65536;
  const auto outputs = ExportFiles(inputs_, out_, {});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  for (const WrittenFormat& written : outputs->formats) {
    EXPECT_EQ(written.files.back(), "README.md");
    const auto card = common::ReadFile(written.folder + "/README.md");
    ASSERT_TRUE(card.ok()) << card.status();
    EXPECT_FALSE(absl::StrContains(*card, out_));
    EXPECT_TRUE(absl::StrContains(*card, "15 tensors are equal bit for bit"));
  }
  const std::string modelfile = *common::ReadFile(out_ + "/gguf/Modelfile");
  for (const std::string& file : outputs->formats[0].files) {
    EXPECT_EQ(absl::StrContains(modelfile, "FROM ./" + file + "\n"),
              absl::EndsWith(file, ".gguf"))
        << file;
  }
}

TEST_F(ExportFilesTest, ADatasetWithoutConversationsMeansRawPrompts) {
  inputs_.formats = {v1::GGUF};
  inputs_.origin.mutable_dataset()->set_name("datasets/d");
  ASSERT_TRUE(ExportFiles(inputs_, out_, {}).ok());
  EXPECT_TRUE(absl::StrContains(*common::ReadFile(out_ + "/gguf/Modelfile"),
                                "{{ .Prompt }}"));
}

TEST_F(ExportFilesTest, AModelInShardsIsTheSameModel) {
  inputs_.formats = {v1::GGUF, v1::COMPRESSED_TENSORS};
  const auto whole = ExportFiles(inputs_, out_, {});
  ASSERT_TRUE(whole.ok()) << whole.status();
  const std::string shards = TestPath("shards");
  ASSERT_TRUE(common::MakeFolder(shards).ok());
  inputs_.max_shard_bytes = 8192;
  const auto split = ExportFiles(inputs_, shards, {});
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_EQ(split->equivalence.tensors_bit_exact(),
            whole->equivalence.tensors_bit_exact());
  ASSERT_GT(split->formats[0].files.size(), 3u);

  const auto one = model::GgufFile::Open(out_ + "/gguf/model.gguf");
  const auto many = model::GgufFile::Open(
      absl::StrCat(shards, "/gguf/", split->formats[0].files[0]));
  ASSERT_TRUE(many.ok()) << many.status();
  EXPECT_EQ((*many)->metadata(), (*one)->metadata());
  ASSERT_EQ((*many)->tensors().size(), (*one)->tensors().size());
  for (const auto& tensor : (*one)->tensors()) {
    EXPECT_EQ((*many)->Find(tensor.name)->data, tensor.data) << tensor.name;
  }
  const auto folder =
      model::SafetensorsFolder::Open(shards + "/compressed_tensors");
  ASSERT_TRUE(folder.ok()) << folder.status();
  const auto file = model::SafetensorsFile::Open(
      out_ + "/compressed_tensors/model.safetensors");
  ASSERT_EQ((*folder)->tensors().size(), (*file)->names().size());
  for (const std::string& name : (*file)->names()) {
    EXPECT_EQ((*folder)->Find(name)->data, (*file)->Find(name)->data) << name;
  }
}

TEST_F(ExportFilesTest, ADamagedLaterShardFailsLevelOneByName) {
  inputs_.formats = {v1::GGUF};
  inputs_.max_shard_bytes = 8192;
  const auto outputs = ExportFiles(inputs_, out_, {});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  const auto grid = GridModel::Open(inputs_.base, inputs_.folded);
  const std::string folder = outputs->formats[0].folder;
  const auto first = absl::StrCat(folder, "/", outputs->formats[0].files[0]);
  DamageLastByte((*model::GgufFile::Open(first))->file_paths().back());
  v1::EquivalenceReport report;
  ASSERT_TRUE(CompareMergedGguf(**grid, first, {}, &report).ok());
  ASSERT_EQ(report.differing_size(), 1);
  EXPECT_EQ(report.differing(0).tensor(), "output_norm.weight");
}

TEST_F(ExportFilesTest, RefusesShardSizesThatCannotBe) {
  inputs_.formats = {v1::COMPRESSED_TENSORS};
  inputs_.max_shard_bytes = -1;
  EXPECT_EQ(common::ErrorReason(ExportFiles(inputs_, out_, {}).status()),
            "INVALID_SHARD_SIZE");
}

TEST_F(ExportFilesTest, LoraGgufHasWhatTheLoaderChecks) {
  inputs_.formats = {v1::LORA_GGUF};
  ASSERT_TRUE(ExportFiles(inputs_, out_, {}).ok());
  const auto file =
      model::GgufFile::Open(absl::StrCat(out_, "/lora_gguf/adapter.gguf"));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(*(*file)->GetString("general.type"), "adapter");
  EXPECT_EQ(*(*file)->GetString("adapter.type"), "lora");
  EXPECT_EQ(*(*file)->GetF32("adapter.lora.alpha"), 8);
  const auto* a = (*file)->Find("blk.0.ffn_down.weight.lora_a");
  const auto* b = (*file)->Find("blk.0.ffn_down.weight.lora_b");
  ASSERT_NE(a, nullptr);
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(a->dims, (std::vector<int64_t>{96, 4}));
  EXPECT_EQ(b->dims, (std::vector<int64_t>{4, 64}));
}

TEST_F(ExportFilesTest, AdapterFormatsNeedNoFoldedCheckpoint) {
  inputs_.folded.clear();
  inputs_.formats = {v1::LORA_GGUF, v1::PEFT};
  const auto outputs = ExportFiles(inputs_, out_, {});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_EQ(outputs->equivalence.checkpoint_sha256(),
            *common::Sha256OfFile(inputs_.adapter));
  inputs_.formats = {v1::GGUF};
  EXPECT_EQ(common::ErrorReason(ExportFiles(inputs_, out_, {}).status()),
            "NOT_FOLDED");
}

TEST_F(ExportFilesTest, AnUntunedBaseIsWrittenAsItIs) {
  inputs_.folded.clear();
  inputs_.formats = {v1::GGUF, v1::COMPRESSED_TENSORS};
  inputs_.untuned = true;
  const auto outputs = ExportFiles(inputs_, out_, {});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  const std::string base = *common::Sha256OfFile(inputs_.base);
  EXPECT_EQ(outputs->equivalence.checkpoint_sha256(), base);
  EXPECT_EQ(*common::Sha256OfFile(absl::StrCat(out_, "/gguf/model.gguf")),
            base);
}

TEST_F(ExportFilesTest, ADamagedArtifactFailsLevelOneByName) {
  ASSERT_TRUE(ExportFiles(inputs_, out_, {}).ok());
  const auto grid = GridModel::Open(inputs_.base, inputs_.folded);
  // The last tensor of the GGUF is the final norm.
  const std::string gguf = absl::StrCat(out_, "/gguf/model.gguf");
  DamageLastByte(gguf);
  v1::EquivalenceReport report;
  ASSERT_TRUE(CompareMergedGguf(**grid, gguf, {}, &report).ok());
  ASSERT_EQ(report.differing_size(), 1);
  EXPECT_EQ(report.differing(0).tensor(), "output_norm.weight");
  EXPECT_EQ(report.tensors_bit_exact() + 1, report.tensors());
  EXPECT_EQ(common::ErrorReason(RequireEquivalence(report)),
            "EQUIVALENCE_FAILED");

  const std::string folder = absl::StrCat(out_, "/compressed_tensors");
  DamageLastByte(folder + "/model.safetensors");
  v1::EquivalenceReport ct_report;
  ASSERT_TRUE(CompareCompressedTensors(**grid, folder, {}, &ct_report).ok());
  EXPECT_EQ(common::ErrorReason(RequireEquivalence(ct_report)),
            "EQUIVALENCE_FAILED");
}

TEST_F(ExportFilesTest, RefusesAFoldedFileOfAnotherModel) {
  model::SafetensorsWriter writer;
  ASSERT_TRUE(writer
                  .Add("blk.0.attn_q.weight.codes", "I8", {1, 1},
                       std::vector<uint8_t>{0})
                  .ok());
  ASSERT_TRUE(writer.WriteTo(inputs_.folded).ok());
  const auto outputs = ExportFiles(inputs_, out_, {});
  EXPECT_EQ(common::ErrorReason(outputs.status()), "CORRUPT_FILE");
  EXPECT_TRUE(absl::StrContains(outputs.status().message(),
                                "blk.0.attn_q.weight.codes"))
      << outputs.status();
}

TEST_F(ExportFilesTest, RefusesABaseThatIsNotOnTheGrid) {
  inputs_.base = TestPath("source.gguf");
  EXPECT_EQ(common::ErrorReason(ExportFiles(inputs_, out_, {}).status()),
            "NOT_ON_GRID");
}

TEST_F(ExportFilesTest, RefusesAdapterConfigsItCannotHonour) {
  const auto reason = [&](const char* config) {
    EXPECT_TRUE(common::WriteFileAtomic(inputs_.adapter_config, config).ok());
    return common::ErrorReason(ExportFiles(inputs_, out_, {}).status());
  };
  for (const char* config : {"", "[]", R"({"lora_alpha": 8})", R"({"r": 4})",
                             R"({"r": 8, "lora_alpha": 8})"}) {
    EXPECT_EQ(reason(config), "CORRUPT_FILE") << config;
  }
  for (const char* config : {R"({"r": 4, "lora_alpha": 8, "use_dora": true})",
                             R"({"r": 4, "lora_alpha": 8, "bias": "all"})"}) {
    EXPECT_EQ(reason(config), "UNSUPPORTED_ADAPTER") << config;
  }
}

TEST_F(ExportFilesTest, StopsWhenTheCallerSaysSo) {
  const auto outputs =
      ExportFiles(inputs_, out_, [](absl::string_view, int64_t, int64_t) {
        return absl::AbortedError("stop");
      });
  EXPECT_EQ(outputs.status().code(), absl::StatusCode::kAborted);
  EXPECT_FALSE(common::ReadFile(absl::StrCat(out_, "/gguf/model.gguf")).ok());
}

}  // namespace
}  // namespace onegrid::exporter
