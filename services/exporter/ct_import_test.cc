// The import of compressed-tensors folders: what the exports write comes back
// bit for bit, and folders that are damaged or foreign are refused by name.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/base/float_types.h"
#include "kernels/quant/ct_pack.h"
#include "kernels/quant/grid.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/exporter/ct_export.h"
#include "services/exporter/gguf_export.h"
#include "services/exporter/grid_model.h"
#include "services/exporter/hf_importer.h"
#include "services/exporter/test_folder.h"
#include "services/exporter/test_model.h"
#include "services/model/gguf_reader.h"
#include "services/model/safetensors.h"

namespace onegrid::exporter {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kUp[] = "model.layers.0.mlp.up_proj";
constexpr char kEmbedding[] = "model.embed_tokens.weight";

// Exports the on-grid GGUF `base` with `folded`, in both formats, to the test's
// folder "ct" and its file "model.gguf".
TestFolder Export(const std::string& base, const std::string& folded = "") {
  const std::string path = TestPath("ct");
  EXPECT_TRUE(common::MakeFolder(path).ok());
  const auto grid = GridModel::Open(base, folded);
  EXPECT_TRUE(grid.ok()) << grid.status();
  EXPECT_TRUE(WriteCompressedTensors(**grid, path, 0, {}).ok());
  EXPECT_TRUE(WriteMergedGguf(**grid, TestPath(""), 0, {}).ok());
  return ReadTestFolder(path);
}

TestFolder ExportInt4() { return Export(ImportTestModel()); }

TestFolder ExportMixed() {
  const std::string base = ImportTestModel();
  WriteTestFolded(FoldTestModelMixed(base), TestPath("folded.safetensors"));
  return Export(base, TestPath("folded.safetensors"));
}

absl::StatusOr<v1::ImportReport> Import(const std::string& folder) {
  return ImportHfFolder(folder, TestPath("again.gguf"), {});
}

void ExpectRefused(const TestFolder& folder, const std::string& reason,
                   const std::string& message) {
  const auto report = Import(folder.Write(TestPath("ct")));
  ASSERT_FALSE(report.ok()) << message;
  EXPECT_EQ(common::ErrorReason(report.status()), reason) << report.status();
  EXPECT_THAT(std::string(report.status().message()), HasSubstr(message));
  EXPECT_NE(access(TestPath("again.gguf").c_str(), F_OK), 0);
}

// Every matrix of the GGUF "again.gguf" is that of "model.gguf".
void ExpectSameMatrices() {
  const auto before = model::GgufFile::Open(TestPath("model.gguf"));
  const auto after = model::GgufFile::Open(TestPath("again.gguf"));
  ASSERT_TRUE(before.ok() && after.ok());
  for (const auto& tensor : (*before)->tensors()) {
    const auto* again = (*after)->Find(tensor.name);
    ASSERT_NE(again, nullptr) << tensor.name;
    EXPECT_EQ(again->type, tensor.type) << tensor.name;
    if (tensor.dims.size() == 2) {
      EXPECT_EQ(again->data, tensor.data) << tensor.name;
    }
  }
  EXPECT_EQ(*(*before)->GetU32("general.file_type"),
            *(*after)->GetU32("general.file_type"));
  ASSERT_TRUE(GridModel::Open(TestPath("again.gguf"), "").ok());
}

TEST(CtImportTest, AnInt4ExportComesBackBitForBit) {
  const TestFolder folder = ExportInt4();
  const auto report = Import(folder.Write(TestPath("ct")));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->tensors_on_grid(), 7);
  EXPECT_EQ(report->groups(), (64 * 64 * 2 + 32 * 64 * 2 + 96 * 64 * 3) / 32);
  EXPECT_EQ(report->groups_kept(), report->groups());
  EXPECT_EQ(report->groups_on_grid(), report->groups());
  EXPECT_EQ(report->relative_rms_error(), 0);
  EXPECT_EQ(report->tensors_off_grid_size(), 0);
  ExpectSameMatrices();
  // And out again, file for file.
  const std::string weights =
      *common::ReadFile(TestPath("ct") + "/model.safetensors");
  const std::string config = *common::ReadFile(TestPath("ct") + "/config.json");
  std::filesystem::copy_file(TestPath("again.gguf"), TestPath("third.gguf"));
  const TestFolder again = Export(TestPath("third.gguf"));
  for (const auto& [name, tensor] : folder.tensors) {
    if (name.find("norm") != std::string::npos) continue;  // w - 1 + 1
    EXPECT_EQ(again.tensors.at(name).bytes, tensor.bytes) << name;
  }
  EXPECT_EQ(again.config, folder.config);
}

TEST(CtImportTest, AMixedExportComesBackBitForBit) {
  const auto report = Import(ExportMixed().Write(TestPath("ct")));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->groups_kept(), report->groups());
  EXPECT_EQ(report->tensors_off_grid_size(), 0);
  ExpectSameMatrices();
}

TEST(CtImportTest, ScalesMayBeBf16) {
  TestFolder folder = ExportInt4();
  for (auto& [name, tensor] : folder.tensors) {
    if (name.find("weight_scale") == std::string::npos) continue;
    std::vector<uint16_t> scales;
    for (const float scale : ValuesOf<float>(tensor)) {
      scales.push_back(kernels::FloatToBf16(scale));
    }
    tensor = MakeTensor("BF16", tensor.shape, scales);
  }
  ASSERT_TRUE(Import(folder.Write(TestPath("ct"))).ok());
  ExpectSameMatrices();
}

TEST(CtImportTest, MatricesThatCannotKeepAllAreNamed) {
  TestFolder folder = ExportInt4();
  TestTensor& tensor = folder.tensors.at(absl::StrCat(kUp, ".weight_scale"));
  std::vector<float> scales = ValuesOf<float>(tensor);
  scales[0] = 1025 * 0x1p-17f;
  scales[1] = 0x1p-20f;
  tensor = MakeTensor("F32", tensor.shape, scales);
  const auto report = Import(folder.Write(TestPath("ct")));
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->tensors_off_grid_size(), 1);
  const v1::TensorOffGrid& off = report->tensors_off_grid(0);
  EXPECT_EQ(off.tensor(), "blk.0.ffn_up.weight");
  EXPECT_EQ(off.groups(), 96 * 64 / 32);
  EXPECT_EQ(off.groups_snapped(), 1);
  EXPECT_EQ(off.groups_fallback(), 1);
  EXPECT_EQ(report->groups_snapped(), 1);
  EXPECT_EQ(report->groups_fallback(), 1);
  EXPECT_LE(report->groups_kept(), report->groups() - 1);
}

// Packs the matrix of a float tensor's shape, all codes -8, scales 2^-8.
void PackModule(const std::string& module, int64_t rows, int64_t cols,
                TestFolder& folder) {
  const std::vector<int8_t> codes(rows * cols, -8);
  folder.tensors[module + ".weight_packed"] =
      MakeTensor("I32", {rows, cols / 8}, *quant::PackCt(codes, rows, cols, 4));
  folder.tensors[module + ".weight_scale"] = MakeTensor(
      "F32", {rows, cols / 32}, std::vector<float>(rows * cols / 32, 0x1p-8f));
  folder.tensors[module + ".weight_shape"] =
      MakeTensor("I64", {2}, std::vector<int64_t>{rows, cols});
}

TEST(CtImportTest, APackedEmbeddingAndFloatLinearsAreTaken) {
  TestFolder folder = ExportInt4();
  folder.tensors.erase(kEmbedding);
  PackModule("model.embed_tokens", 300, 64, folder);
  folder.group()["targets"] = {"Linear", "Embedding"};
  for (const char* part :
       {".weight_packed", ".weight_scale", ".weight_shape"}) {
    folder.tensors.erase(absl::StrCat(kUp, part));
  }
  folder.tensors[absl::StrCat(kUp, ".weight")] =
      MakeTensor("F32", {96, 64}, std::vector<float>(96 * 64, 0.25f));
  folder.config["quantization_config"]["ignore"] = {"lm_head", kUp};
  const auto report = Import(folder.Write(TestPath("ct")));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->groups_kept(), report->groups());
  const auto grid = GridModel::Open(TestPath("again.gguf"), "");
  ASSERT_TRUE(grid.ok()) << grid.status();
  EXPECT_EQ((*grid)->Embedding()->codes, std::vector<int8_t>(300 * 64, -8));
  EXPECT_EQ((*grid)->Embedding()->grid, &quant::kInt4G32);
}

TEST(CtImportTest, AHeadThatIsTheEmbeddingIsTied) {
  TestFolder folder = ExportInt4();
  folder.config["tie_word_embeddings"] = false;
  ExpectRefused(folder, "CORRUPT_FILE", "'lm_head.weight' is missing");
  const TestTensor embedding = folder.tensors.at(kEmbedding);
  folder.tensors["lm_head.weight"] = embedding;
  const auto report = Import(folder.Write(TestPath("ct")));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->tensors_on_grid(), 7);
  ExpectSameMatrices();
  ASSERT_EQ(unlink(TestPath("again.gguf").c_str()), 0);
  folder.tensors["lm_head.weight"].shape = {64, 300};
  ExpectRefused(folder, "CORRUPT_FILE", "'lm_head.weight': expected shape");
  folder.tensors["lm_head.weight"] =
      MakeTensor("I8", {300, 64}, std::vector<int8_t>(300 * 64));
  ExpectRefused(folder, "UNSUPPORTED_TENSOR", "'lm_head.weight' is I8");
  folder.tensors.erase("lm_head.weight");
  PackModule("lm_head", 300, 64, folder);
  ExpectRefused(folder, "CORRUPT_FILE", "does not say how lm_head is packed");
}

// In, out as compressed-tensors and in again.
TEST(CtImportTest, AnotherHeadIsKept) {
  TestFolder folder = ExportInt4();
  folder.config["tie_word_embeddings"] = false;
  std::vector<float> head = ValuesOf<float>(folder.tensors.at(kEmbedding));
  std::reverse(head.begin(), head.end());
  folder.tensors["lm_head.weight"] = MakeTensor("F32", {300, 64}, head);
  auto report = Import(folder.Write(TestPath("ct")));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->tensors_on_grid(), 8);
  std::filesystem::rename(TestPath("again.gguf"), TestPath("first.gguf"));
  const TestFolder exported = Export(TestPath("first.gguf"));
  EXPECT_EQ(exported.config["tie_word_embeddings"], false);
  EXPECT_EQ(exported.config["quantization_config"]["ignore"],
            json({"lm_head"}));
  // int8_g32 rounds by half a step of a 127th of the largest weight of a group.
  const auto again = ValuesOf<float>(exported.tensors.at("lm_head.weight"));
  for (size_t g = 0; g < head.size(); g += 32) {
    float amax = 0;
    for (size_t i = g; i < g + 32; ++i) {
      amax = std::max(amax, std::abs(head[i]));
    }
    for (size_t i = g; i < g + 32; ++i) {
      EXPECT_NEAR(again[i], head[i], amax / 127 * 0.51f) << i;
    }
  }
  report = Import(exported.Write(TestPath("ct")));
  ASSERT_TRUE(report.ok()) << report.status();
  ExpectSameMatrices();
}

TEST(CtImportTest, DamagedModulesAreRefusedByName) {
  const TestFolder good = ExportInt4();
  const std::string packed = absl::StrCat(kUp, ".weight_packed");
  const std::string scale = absl::StrCat(kUp, ".weight_scale");
  const std::string shape = absl::StrCat(kUp, ".weight_shape");
  for (const std::string& name : {packed, scale, shape}) {
    TestFolder folder = good;
    folder.tensors.erase(name);
    ExpectRefused(folder, "CORRUPT_FILE", "'" + name + "' is missing");
    folder = good;
    folder.tensors[name] = MakeTensor("I8", {1}, std::vector<int8_t>(1));
    ExpectRefused(folder, "CORRUPT_FILE", "'" + name + "'");
    folder = good;
    TestTensor& tensor = folder.tensors[name];
    tensor.dtype = tensor.dtype == "I64" ? "F64" : "U32";
    ExpectRefused(folder, "CORRUPT_FILE", "'" + name + "' is ");
  }
  TestFolder folder = good;
  folder.tensors[packed].shape = {8, 96};
  ExpectRefused(folder, "CORRUPT_FILE", "expected shape [96, 8]");
  folder = good;
  folder.tensors[scale].shape = {2, 96};
  ExpectRefused(folder, "CORRUPT_FILE", "expected shape [96, 2]");
  for (const int64_t bad : {int64_t{65}, int64_t{-64}, INT64_MAX}) {
    folder = good;
    folder.tensors[shape] =
        MakeTensor("I64", {2}, std::vector<int64_t>{96, bad});
    ExpectRefused(folder, "CORRUPT_FILE", "expected 96, 64, found 96, ");
  }
  for (const float bad : {std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    folder = good;
    std::vector<float> scales(96 * 2, 1.0f);
    scales[5] = bad;
    folder.tensors[scale] = MakeTensor("F32", {96, 2}, scales);
    ExpectRefused(folder, "UNSUPPORTED_TENSOR", scale + " has a scale");
  }
  folder = good;
  folder.tensors[scale] =
      MakeTensor("F32", {96, 2}, std::vector<float>(96 * 2, 1e30f));
  ExpectRefused(folder, "UNSUPPORTED_TENSOR", "blk.0.ffn_up.weight");
}

TEST(CtImportTest, ConfigsThatDoNotFitTheTensorsAreRefused) {
  const TestFolder good = ExportInt4();
  TestFolder folder = good;
  folder.group()["weights"]["num_bits"] = 8;
  ExpectRefused(folder, "CORRUPT_FILE", "expected shape [64, 16]");
  folder = good;
  folder.group()["weights"]["group_size"] = 24;
  ExpectRefused(folder, "CORRUPT_FILE", "not whole groups of 24");
  folder = good;
  folder.config["quantization_config"]["ignore"] = {kUp};
  ExpectRefused(folder, "CORRUPT_FILE", "does not say how");
  folder = good;
  folder.group()["targets"] = {"re:.*vision.*"};
  ExpectRefused(folder, "CORRUPT_FILE", "names no module");
  folder = good;
  folder.group("group_1") = folder.group();
  folder.group("group_1")["weights"]["num_bits"] = 8;
  ExpectRefused(folder, "CORRUPT_FILE", "do not agree");
  folder = good;
  folder.config.erase("quantization_config");
  ExpectRefused(folder, "CORRUPT_FILE", "does not say how");
}

TEST(CtImportTest, OtherFormsAreRefusedByName) {
  const TestFolder good = ExportInt4();
  TestFolder folder = good;
  folder.group()["weights"]["symmetric"] = false;
  ExpectRefused(folder, "UNSUPPORTED_QUANTIZATION", "symmetric");
  folder = good;
  folder.tensors[absl::StrCat(kUp, ".weight_zero_point")] =
      MakeTensor("I32", {12, 2}, std::vector<int32_t>(24));
  ExpectRefused(folder, "UNSUPPORTED_QUANTIZATION", "zero points");
  folder = good;
  folder.tensors[absl::StrCat(kUp, ".weight_g_idx")] =
      MakeTensor("I32", {64}, std::vector<int32_t>(64));
  ExpectRefused(folder, "UNSUPPORTED_QUANTIZATION", "actorder");
  folder = good;
  folder.tensors[absl::StrCat(kUp, ".input_scale")] =
      MakeTensor("F32", {1}, std::vector<float>(1));
  ExpectRefused(folder, "UNSUPPORTED_TENSOR", "input_scale");
  folder = good;
  folder.config["quantization_config"]["format"] = "int-quantized";
  folder.group().erase("format");
  ExpectRefused(folder, "UNSUPPORTED_QUANTIZATION", "int-quantized");
}

TEST(CtImportTest, TruncatedFilesAreRefused) {
  const std::string path = ExportInt4().Write(TestPath("ct"));
  const std::string weights = path + "/model.safetensors";
  const std::string bytes = *common::ReadFile(weights);
  for (const size_t size : {size_t{0}, size_t{8}, size_t{500}, bytes.size() / 2,
                            bytes.size() - 1}) {
    ASSERT_TRUE(common::WriteFileAtomic(weights, bytes.substr(0, size)).ok());
    EXPECT_EQ(common::ErrorReason(Import(path).status()), "CORRUPT_FILE");
  }
  const std::string config = *common::ReadFile(path + "/config.json");
  ASSERT_TRUE(common::WriteFileAtomic(weights, bytes).ok());
  ASSERT_TRUE(common::WriteFileAtomic(path + "/config.json",
                                      config.substr(0, config.size() / 2))
                  .ok());
  EXPECT_EQ(common::ErrorReason(Import(path).status()), "CORRUPT_FILE");
  EXPECT_NE(access(TestPath("again.gguf").c_str(), F_OK), 0);
}

// Some bytes of the configuration, or of the header and the data of the
// weights, are others (fixed seed). Meant to be run with --config=asan too.
TEST(CtImportTest, DamagedFoldersNeverCrash) {
  const std::string path = ExportMixed().Write(TestPath("ct"));
  std::mt19937 random(11);
  int refused = 0;
  for (int copy = 0; copy < 30; ++copy) {
    const std::string file =
        path + (copy % 2 == 0 ? "/config.json" : "/model.safetensors");
    const std::string good = *common::ReadFile(file);
    std::string bytes = good;
    const size_t range = copy % 4 == 1 ? bytes.size() : 4000;
    for (int i = 0; i < 3; ++i) {
      char& byte = bytes[random() % std::min(range, bytes.size())];
      // Mostly digits, which leave the JSON what it is.
      byte =
          static_cast<char>(random() % 4 == 0 ? random() : '0' + random() % 10);
    }
    ASSERT_TRUE(common::WriteFileAtomic(file, bytes).ok());
    const auto report = Import(path);
    refused += report.ok() ? 0 : 1;
    if (!report.ok()) {
      EXPECT_NE(common::ErrorReason(report.status()), "") << report.status();
    }
    ASSERT_TRUE(common::WriteFileAtomic(file, good).ok());
  }
  EXPECT_GT(refused, 10);
}

}  // namespace
}  // namespace onegrid::exporter
