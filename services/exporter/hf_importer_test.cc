#include "services/exporter/hf_importer.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/base/float_types.h"
#include "kernels/quant/grid.h"
#include "kernels/quant/q4_0.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/exporter/importer.h"
#include "services/exporter/test_model.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/hf_tokenizer.h"
#include "services/model/safetensors.h"
#include "services/model/tensor_names.h"
#include "services/model/tensor_ops.h"

namespace onegrid::exporter {
namespace {

using model::GgufFile;
using ::testing::HasSubstr;

struct Tensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;
};

template <typename T>
Tensor MakeTensor(const std::string& dtype, std::vector<int64_t> shape,
                  const std::vector<T>& values) {
  Tensor tensor{dtype, std::move(shape), {}};
  tensor.bytes.resize(values.size() * sizeof(T));
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

Tensor Bf16Tensor(const std::vector<int64_t>& shape,
                  const std::vector<float>& values) {
  std::vector<uint16_t> bits;
  for (const float value : values) bits.push_back(kernels::FloatToBf16(value));
  return MakeTensor("BF16", shape, bits);
}

// The test model as a Hugging Face folder: linears on 4-bit lattices, rounded
// to bf16. What a test wants otherwise it changes before Write.
struct Folder {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> files;           // config and tokenizer
  std::map<std::string, quant::GridMatrix> lattices;  // by GGUF name
  std::vector<float> output_norm;

  void WriteShard(const std::string& path,
                  const std::vector<std::string>& names) const {
    model::SafetensorsWriter writer;
    for (const std::string& name : names) {
      const Tensor& tensor = tensors.at(name);
      ASSERT_TRUE(
          writer.Add(name, tensor.dtype, tensor.shape, tensor.bytes).ok());
    }
    ASSERT_TRUE(writer.WriteTo(path).ok());
  }

  std::string WriteFiles() const {
    const std::string folder = TestPath("hf");
    EXPECT_TRUE(common::MakeFolder(folder).ok());
    for (const auto& [name, text] : files) {
      EXPECT_TRUE(
          common::WriteFileAtomic(absl::StrCat(folder, "/", name), text).ok());
    }
    return folder;
  }

  std::string Write() const {
    const std::string folder = WriteFiles();
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors) names.push_back(name);
    WriteShard(absl::StrCat(folder, "/model.safetensors"), names);
    return folder;
  }

  // Two shards, the tensors dealt out in turn.
  std::string WriteSharded() const {
    const std::string folder = WriteFiles();
    std::vector<std::string> names[2];
    std::string map;
    int turn = 0;
    for (const auto& [name, tensor] : tensors) {
      names[turn].push_back(name);
      absl::StrAppend(&map, map.empty() ? "" : ",", "\"", name, "\":\"shard-",
                      turn, ".safetensors\"");
      turn = 1 - turn;
    }
    for (int i = 0; i < 2; ++i) {
      WriteShard(absl::StrCat(folder, "/shard-", i, ".safetensors"), names[i]);
    }
    EXPECT_TRUE(common::WriteFileAtomic(
                    absl::StrCat(folder, "/model.safetensors.index.json"),
                    absl::StrCat("{\"weight_map\":{", map, "}}"))
                    .ok());
    return folder;
  }
};

void AddLinears(const GgufFile& file, const model::GemmaConfig& config,
                bool on_lattice, Folder& folder) {
  for (const model::LinearSpec& spec : model::GemmaLinears(config)) {
    std::vector<float> w = *model::DequantizeTensor(*file.Find(spec.gguf_name));
    if (on_lattice) {
      const auto matrix =
          quant::EncodeMatrix(w, spec.out, spec.in, quant::kInt4G32);
      ASSERT_TRUE(matrix.ok());
      quant::DequantizeMatrix(*matrix, absl::MakeSpan(w));
      folder.lattices[spec.gguf_name] = *matrix;
    }
    folder.tensors[absl::StrCat(spec.hf_name, ".weight")] =
        Bf16Tensor({spec.out, spec.in}, w);
  }
}

Folder MakeFolder(bool on_lattice = true) {
  Folder folder;
  const auto file = GgufFile::Open(WriteTestModel("source.gguf"));
  EXPECT_TRUE(file.ok()) << file.status();
  const auto config = model::ConfigFromGguf(**file);
  EXPECT_TRUE(config.ok()) << config.status();
  folder.files = *model::HfTokenizerFiles(**file);
  folder.files["config.json"] = *model::HfConfigJson(*config, "bfloat16", "");
  AddLinears(**file, *config, on_lattice, folder);
  for (const model::NormSpec& spec : model::GemmaNorms(*config)) {
    std::vector<float> w =
        *model::DequantizeTensor(*(*file)->Find(spec.gguf_name));
    if (spec.gguf_name == "output_norm.weight") folder.output_norm = w;
    for (float& value : w) value -= 1;
    folder.tensors[spec.hf_name] = MakeTensor("F32", {spec.size}, w);
  }
  folder.tensors[model::kHfEmbedding] = Bf16Tensor(
      {config->vocab_size, config->hidden},
      *model::DequantizeTensor(*(*file)->Find(model::kGgufEmbedding)));
  return folder;
}

absl::StatusOr<v1::ImportReport> Import(const std::string& folder,
                                        const std::string& tokenizer = "") {
  return ImportHfFolder(folder, TestPath("base.gguf"), {1, {}, tokenizer});
}

// The import of a changed folder fails with this reason, names this, and
// leaves no file.
void ExpectRefused(const std::string& folder, const std::string& reason,
                   const std::string& message) {
  const auto report = Import(folder);
  ASSERT_FALSE(report.ok()) << message;
  EXPECT_EQ(common::ErrorReason(report.status()), reason) << report.status();
  EXPECT_THAT(std::string(report.status().message()), HasSubstr(message));
  EXPECT_NE(access(TestPath("base.gguf").c_str(), F_OK), 0);
}

TEST(HfImporterTest, RecoversCodesAndScalesOfEveryGroup) {
  const Folder folder = MakeFolder();
  const auto report = Import(folder.Write());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->architecture(), "gemma3");
  EXPECT_EQ(report->tensors_on_grid(), 7);
  EXPECT_EQ(report->groups_on_grid(), report->groups());
  EXPECT_EQ(report->groups_fallback(), 0);
  EXPECT_EQ(report->groups_snapped(), 0);
  const auto base = GgufFile::Open(TestPath("base.gguf"));
  ASSERT_TRUE(base.ok());
  for (const auto& [name, expected] : folder.lattices) {
    const auto matrix = quant::UnpackQ4_0((*base)->Find(name)->data,
                                          expected.rows, expected.cols);
    ASSERT_TRUE(matrix.ok());
    EXPECT_EQ(matrix->codes, expected.codes) << name;
    EXPECT_EQ(matrix->scales, expected.scales) << name;
  }
}

// The embedding of quantization-aware training, in bf16.
quant::GridMatrix PutLatticeTable(Folder& folder) {
  Tensor& table = folder.tensors.at(model::kHfEmbedding);
  const int64_t rows = table.shape[0], cols = table.shape[1];
  std::vector<float> w(static_cast<size_t>(rows * cols));
  for (size_t i = 0; i < w.size(); ++i) {
    w[i] = std::sin(static_cast<float>(i)) * 0.3f;
  }
  const auto matrix = quant::EncodeMatrix(w, rows, cols, quant::kInt4G32);
  EXPECT_TRUE(matrix.ok());
  quant::DequantizeMatrix(*matrix, absl::MakeSpan(w));
  table = Bf16Tensor({rows, cols}, w);
  return *matrix;
}

TEST(HfImporterTest, ATableOnLatticesGetsTheirCodesBack) {
  Folder folder = MakeFolder();
  const quant::GridMatrix matrix = PutLatticeTable(folder);
  const auto report = Import(folder.Write());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->tensors_off_grid_size(), 0);
  const auto file = GgufFile::Open(TestPath("base.gguf"));
  ASSERT_TRUE(file.ok()) << file.status();
  const auto& table = *(*file)->Find(model::kGgufEmbedding);
  ASSERT_EQ(table.type, quant::GgmlType::kQ4_0);
  const auto read = quant::UnpackQ4_0(table.data, matrix.rows, matrix.cols);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->codes, matrix.codes);
  EXPECT_EQ(read->scales, matrix.scales);
}

// One weight of one group, the last, and not by a step.
TEST(HfImporterTest, ATableWithAGroupOnNoLatticeIsQ8) {
  Folder folder = MakeFolder();
  PutLatticeTable(folder);
  std::vector<uint8_t>& bytes = folder.tensors.at(model::kHfEmbedding).bytes;
  bytes[bytes.size() - 2] ^= 0x15;
  ASSERT_TRUE(Import(folder.Write()).ok());
  const auto type = [] {
    return (*GgufFile::Open(TestPath("base.gguf")))
        ->Find(model::kGgufEmbedding)
        ->type;
  };
  EXPECT_EQ(type(), quant::GgmlType::kQ8_0);
  std::fill(bytes.begin(), bytes.end(), uint8_t{0});
  ASSERT_TRUE(Import(folder.Write()).ok());
  EXPECT_EQ(type(), quant::GgmlType::kQ8_0);
}

TEST(HfImporterTest, FileReadsAsTheModelItCameFrom) {
  const Folder folder = MakeFolder();
  ASSERT_TRUE(Import(folder.Write()).ok());
  const auto base = GgufFile::Open(TestPath("base.gguf"));
  const auto source = GgufFile::Open(TestPath("source.gguf"));
  ASSERT_TRUE(base.ok());
  const auto config = model::ConfigFromGguf(**base);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->attention_scale,
            model::ConfigFromGguf(**source)->attention_scale);
  EXPECT_EQ((*base)->GetStrings("tokenizer.ggml.tokens").value(),
            (*source)->GetStrings("tokenizer.ggml.tokens").value());
  // Norms: 1 was taken away and added again in f32.
  const std::vector<float> norm =
      *model::DequantizeTensor(*(*base)->Find("output_norm.weight"));
  ASSERT_EQ(norm.size(), folder.output_norm.size());
  for (size_t i = 0; i < norm.size(); ++i) {
    EXPECT_NEAR(norm[i], folder.output_norm[i], 3e-7);
  }
  // Importing the result again changes nothing.
  const auto again =
      ImportGguf(TestPath("base.gguf"), TestPath("again.gguf"), {});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->groups_kept(), again->groups());
}

TEST(HfImporterTest, ShardsAreOneModel) {
  const Folder folder = MakeFolder();
  ASSERT_TRUE(Import(folder.Write()).ok());
  const std::string single = *common::Sha256OfFile(TestPath("base.gguf"));
  const std::string path = folder.WriteSharded();
  const auto report = Import(path);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(*common::Sha256OfFile(TestPath("base.gguf")), single);
}

TEST(HfImporterTest, OrdinaryWeightsAreCountedAsFallbacks) {
  const auto report = Import(MakeFolder(/*on_lattice=*/false).Write());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->groups_on_grid(), 0);
  EXPECT_EQ(report->groups_fallback(), report->groups());
  EXPECT_GT(report->relative_rms_error(), 0.05);
}

TEST(HfImporterTest, TokenizerMayComeFromAGguf) {
  Folder folder = MakeFolder();
  const auto expected = Import(folder.Write());
  ASSERT_TRUE(expected.ok());
  ASSERT_EQ(unlink(TestPath("base.gguf").c_str()), 0);
  for (const char* name : {"tokenizer.model", "tokenizer.json"}) {
    folder.files.erase(name);
    ASSERT_EQ(unlink(absl::StrCat(TestPath("hf"), "/", name).c_str()), 0);
  }
  ExpectRefused(folder.Write(), "MISSING_TOKENIZER", "no tokenizer.model");
  const auto report = Import(folder.Write(), TestPath("source.gguf"));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->tokenizer_sha256(), expected->tokenizer_sha256());
}

TEST(HfImporterTest, HostileTensorsAreRefusedByName) {
  const Folder good = MakeFolder();
  const std::string up = "model.layers.0.mlp.up_proj.weight";
  Folder folder = good;
  folder.tensors.erase(up);
  ExpectRefused(folder.Write(), "CORRUPT_FILE", up + "' is missing");
  folder = good;
  folder.tensors[up].shape = {64, 96};
  ExpectRefused(folder.Write(), "CORRUPT_FILE",
                "expected shape [96, 64], found [64, 96]");
  folder = good;
  folder.tensors[up] = MakeTensor("I8", {96, 64}, std::vector<int8_t>(96 * 64));
  ExpectRefused(folder.Write(), "UNSUPPORTED_TENSOR", "is I8");
  folder = good;
  folder.tensors["vision.weight"] = Bf16Tensor({1}, {1.0f});
  ExpectRefused(folder.Write(), "UNSUPPORTED_TENSOR", "vision.weight");
  for (const char* name :
       {up.c_str(), model::kHfEmbedding, "model.norm.weight"}) {
    folder = good;
    Tensor& tensor = folder.tensors[name];
    std::vector<float> w(tensor.bytes.size() /
                         (tensor.dtype == "BF16" ? 2 : 4));
    w[3] = std::numeric_limits<float>::quiet_NaN();
    tensor = Bf16Tensor(tensor.shape, w);
    ExpectRefused(folder.Write(), "UNSUPPORTED_TENSOR", "not finite");
  }
}

TEST(HfImporterTest, HostileFilesAreRefused) {
  const Folder good = MakeFolder();
  const std::string path = good.Write();
  const std::string weights = path + "/model.safetensors";
  const std::string bytes = *common::ReadFile(weights);
  for (const size_t size : {size_t{0}, size_t{7}, size_t{100}, bytes.size() / 2,
                            bytes.size() - 1}) {
    ASSERT_TRUE(common::WriteFileAtomic(weights, bytes.substr(0, size)).ok());
    ExpectRefused(path, "CORRUPT_FILE", "model.safetensors");
  }
  ASSERT_EQ(unlink(weights.c_str()), 0);
  EXPECT_FALSE(Import(path).ok());
  Folder folder = good;
  folder.files["config.json"] = "{";
  ExpectRefused(folder.Write(), "CORRUPT_FILE", "config.json");
  EXPECT_FALSE(Import(TestPath("nowhere")).ok());
}

TEST(HfImporterTest, HostileIndexesAreRefused) {
  const std::string path = MakeFolder().WriteSharded();
  const std::string index = path + "/model.safetensors.index.json";
  const std::string text = *common::ReadFile(index);
  const auto refuse = [&](const std::string& changed,
                          const std::string& message) {
    ASSERT_TRUE(common::WriteFileAtomic(index, changed).ok());
    ExpectRefused(path, "CORRUPT_FILE", message);
  };
  refuse("{}", "weight_map");
  refuse("{\"weight_map\":[]}", "weight_map");
  refuse("{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "beside it");
  refuse("{\"weight_map\":{\"a\":5}}", "beside it");
  refuse("{\"weight_map\":{\"a\":\"x.safetensors\"}}",
         "the shard x.safetensors is missing");
  refuse(absl::StrCat("{\"weight_map\":{\"a\":\"shard-0.safetensors\",",
                      text.substr(text.find("\"model."))),
         "'a' is not in shard-0");
  ASSERT_TRUE(common::WriteFileAtomic(index, text).ok());
  ASSERT_EQ(unlink((path + "/shard-1.safetensors").c_str()), 0);
  ExpectRefused(path, "CORRUPT_FILE", "the shard shard-1.safetensors");
}

}  // namespace
}  // namespace onegrid::exporter
