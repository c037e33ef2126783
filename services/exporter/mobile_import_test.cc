// The import of Google's mobile layout (quant_method "gemma"): codes and scales
// arrive on the grids of their bits, and folders that are damaged or foreign
// are refused by name.
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quant/grid.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/exporter/ct_export.h"
#include "services/exporter/grid_model.h"
#include "services/exporter/hf_importer.h"
#include "services/exporter/test_folder.h"
#include "services/exporter/test_model.h"
#include "services/model/gguf_reader.h"
#include "services/model/tensor_ops.h"

namespace onegrid::exporter {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

constexpr char kUp[] = "model.layers.0.mlp.up_proj";
constexpr char kEmbedding[] = "model.embed_tokens";
constexpr int64_t kVocab = 300, kHidden = 64;

// Codes in the folder's order, and their values with one scale a row.
struct Matrix {
  int bits;
  int64_t rows;
  int64_t cols;
  std::vector<int8_t> codes;
  std::vector<float> scales;

  std::vector<float> Values() const {
    std::vector<float> values;
    for (size_t i = 0; i < codes.size(); ++i) {
      values.push_back(static_cast<float>(codes[i]) *
                       scales[i / static_cast<size_t>(cols)]);
    }
    return values;
  }
  TestTensor Packed() const {
    if (bits == 8) return MakeTensor("I8", {rows, cols}, codes);
    const int per_byte = 8 / bits;
    std::vector<uint8_t> bytes(codes.size() / per_byte);
    for (size_t i = 0; i < codes.size(); ++i) {
      const int stored = codes[i] + (1 << (bits - 1));
      bytes[i / per_byte] |=
          static_cast<uint8_t>(stored << (i % per_byte * bits));
    }
    return MakeTensor("U8", {rows, cols / per_byte}, bytes);
  }
};

// Random codes from the lowest + `above` on; scales of 8 significant bits.
Matrix RandomMatrix(int bits, int64_t rows, int64_t cols, int above = 0) {
  std::mt19937 random(static_cast<unsigned>(bits * 1000 + rows));
  std::uniform_int_distribution<int> code(-(1 << (bits - 1)) + above,
                                          (1 << (bits - 1)) - 1);
  Matrix matrix{bits, rows, cols, {}, {}};
  for (int64_t i = 0; i < rows * cols; ++i) {
    matrix.codes.push_back(static_cast<int8_t>(code(random)));
  }
  for (int64_t i = 0; i < rows; ++i) {
    matrix.scales.push_back(
        std::ldexp(static_cast<float>(128 + random() % 128), -19));
  }
  return matrix;
}

// The tests' model in the mobile layout: q and o 8 bits, gate 2 bits with all
// four codes, up 2 bits ternary, the rest 4 bits; embedding 4 bits, head 2.
struct Mobile {
  TestFolder folder;
  std::map<std::string, Matrix> matrices;  // by module

  void Put(const std::string& module, const Matrix& matrix) {
    const bool table = module == kEmbedding;
    const int64_t rows = matrix.rows;
    folder.tensors.erase(module + ".weight");
    folder.tensors[module + (table ? ".embedding_quantized" : ".weight")] =
        matrix.Packed();
    folder.tensors[module + (table ? ".embedding_scale" : ".weight_scale")] =
        MakeTensor("F32", {rows, 1}, matrix.scales);
    for (const char* part :
         {".input_activation_scale", ".output_activation_scale"}) {
      if (table) continue;
      folder.tensors[module + part] =
          MakeTensor("F32", {}, std::vector<float>{0.0f});
    }
    matrices[module] = matrix;
  }
  ordered_json& quantization() { return folder.config["quantization_config"]; }
};

Mobile MakeMobile() {
  const std::string path = TestPath("mobile");
  EXPECT_TRUE(common::MakeFolder(path).ok());
  const auto grid = GridModel::Open(ImportTestModel(), "");
  EXPECT_TRUE(grid.ok()) << grid.status();
  EXPECT_TRUE(WriteCompressedTensors(**grid, path, 0, {}).ok());
  Mobile mobile{ReadTestFolder(path), {}};
  for (auto it = mobile.folder.tensors.begin();
       it != mobile.folder.tensors.end();) {
    const bool packed = it->first.find(".weight_") != std::string::npos;
    it = packed ? mobile.folder.tensors.erase(it) : std::next(it);
  }
  const std::string layer = "model.layers.0.";
  mobile.Put(layer + "self_attn.q_proj", RandomMatrix(8, 64, 64, 1));
  mobile.Put(layer + "self_attn.k_proj", RandomMatrix(4, 32, 64));
  mobile.Put(layer + "self_attn.v_proj", RandomMatrix(4, 32, 64));
  mobile.Put(layer + "self_attn.o_proj", RandomMatrix(8, 64, 64, 1));
  mobile.Put(layer + "mlp.gate_proj", RandomMatrix(2, 96, 64));
  mobile.Put(layer + "mlp.up_proj", RandomMatrix(2, 96, 64, 1));
  mobile.Put(layer + "mlp.down_proj", RandomMatrix(4, 64, 96));
  mobile.Put(kEmbedding, RandomMatrix(4, kVocab, kHidden));
  mobile.Put("lm_head", RandomMatrix(2, kVocab, kHidden));
  mobile.folder.config["tie_word_embeddings"] = false;
  mobile.quantization() = {{"quant_method", "gemma"},
                           {"num_bits", 8},
                           {"quantize_embeddings", true},
                           {"module_quant_configs",
                            {{"lm_head", {{"num_bits", 2}}},
                             {"mlp\\.(gate|up)_proj", {{"num_bits", 2}}},
                             {"mlp|[kv]_proj|embed", {{"num_bits", 4}}}}},
                           {"modules_to_not_convert", {"model.vision_tower"}}};
  return mobile;
}

absl::StatusOr<v1::ImportReport> Import(const TestFolder& folder) {
  return ImportHfFolder(folder.Write(TestPath("mobile")), TestPath("out.gguf"),
                        {});
}

void ExpectRefused(const TestFolder& folder, const std::string& reason,
                   const std::string& message) {
  const auto report = Import(folder);
  ASSERT_FALSE(report.ok()) << message;
  EXPECT_EQ(common::ErrorReason(report.status()), reason) << report.status();
  EXPECT_THAT(std::string(report.status().message()), HasSubstr(message));
  EXPECT_NE(access(TestPath("out.gguf").c_str(), F_OK), 0);
}

// The type and values of a matrix in "out.gguf".
std::pair<quant::GgmlType, std::vector<float>> Imported(
    const std::string& name) {
  const auto file = model::GgufFile::Open(TestPath("out.gguf"));
  EXPECT_TRUE(file.ok()) << file.status();
  const auto* tensor = (*file)->Find(name);
  EXPECT_NE(tensor, nullptr) << name;
  if (tensor == nullptr) return {};
  return {tensor->type, *model::DequantizeTensor(*tensor)};
}

TEST(MobileImportTest, CodesAndDualExactScalesAreKept) {
  const Mobile mobile = MakeMobile();
  const auto report = Import(mobile.folder);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->tensors_on_grid(), 8);
  EXPECT_EQ(report->groups_kept(), report->groups());
  EXPECT_EQ(report->tensors_off_grid_size(), 0);
  EXPECT_EQ(report->static_scales_unused(), 0);
  EXPECT_EQ(report->relative_rms_error(), 0);
  const struct {
    const char* module;
    const char* gguf_name;
    quant::GgmlType type;
  } cases[] = {{"model.layers.0.self_attn.q_proj", "blk.0.attn_q.weight",
                quant::GgmlType::kQ8_0},
               {"model.layers.0.self_attn.v_proj", "blk.0.attn_v.weight",
                quant::GgmlType::kQ4_0},
               {"model.layers.0.mlp.gate_proj", "blk.0.ffn_gate.weight",
                quant::GgmlType::kQ4_0},
               {kUp, "blk.0.ffn_up.weight", quant::GgmlType::kQ2_0},
               {"model.layers.0.mlp.down_proj", "blk.0.ffn_down.weight",
                quant::GgmlType::kQ4_0},
               {kEmbedding, "token_embd.weight", quant::GgmlType::kQ4_0},
               {"lm_head", "output.weight", quant::GgmlType::kQ4_0}};
  for (const auto& c : cases) {
    const auto [type, values] = Imported(c.gguf_name);
    EXPECT_EQ(type, c.type) << c.module;
    EXPECT_EQ(values, mobile.matrices.at(c.module).Values()) << c.module;
  }
  // The trainer and the exports take it.
  EXPECT_TRUE(GridModel::Open(TestPath("out.gguf"), "").ok());
}

TEST(MobileImportTest, OtherScalesMoveAndAreNamed) {
  Mobile mobile = MakeMobile();
  Matrix up = mobile.matrices.at(kUp);
  up.scales[3] *= 1.003f;
  mobile.Put(kUp, up);
  Matrix table = mobile.matrices.at(kEmbedding);
  table.scales[7] *= 1.0015f;
  mobile.Put(kEmbedding, table);
  const auto report = Import(mobile.folder);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->tensors_off_grid_size(), 2);
  EXPECT_EQ(report->tensors_off_grid(0).tensor(), "token_embd.weight");
  EXPECT_EQ(report->tensors_off_grid(0).groups_snapped(), kHidden / 32);
  EXPECT_EQ(report->tensors_off_grid(1).tensor(), "blk.0.ffn_up.weight");
  EXPECT_EQ(report->tensors_off_grid(1).groups_snapped(), 1);
  // Half of the last of 11 bits, and of 8.
  const auto near = [](const std::vector<float>& a, const std::vector<float>& b,
                       float relative) {
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_NEAR(a[i], b[i], std::abs(b[i]) * relative);
    }
  };
  near(Imported("token_embd.weight").second, table.Values(), 0x1p-11f);
  near(Imported("blk.0.ffn_up.weight").second, up.Values(), 0x1p-8f);
}

TEST(MobileImportTest, PartsOfATablesRowMayHaveTheirScales) {
  Mobile mobile = MakeMobile();
  const Matrix& table = mobile.matrices.at(kEmbedding);
  std::vector<float> scales, expected;
  for (int64_t row = 0; row < kVocab; ++row) {
    scales.push_back(table.scales[row]);
    scales.push_back(2 * table.scales[row]);
  }
  for (size_t i = 0; i < table.codes.size(); ++i) {
    expected.push_back(static_cast<float>(table.codes[i]) * scales[i / 32]);
  }
  mobile.folder.tensors[absl::StrCat(kEmbedding, ".embedding_scale")] =
      MakeTensor("F32", {kVocab, 2}, scales);
  ASSERT_TRUE(Import(mobile.folder).ok());
  EXPECT_EQ(Imported("token_embd.weight").second, expected);
}

TEST(MobileImportTest, StaticScalesAreCountedAndNotUsed) {
  Mobile mobile = MakeMobile();
  mobile.folder.tensors[absl::StrCat(kUp, ".input_activation_scale")] =
      MakeTensor("F32", {1}, std::vector<float>{0.5f});
  for (const char* name : {"k_cache_scale", "v_cache_scale"}) {
    mobile.folder.tensors[absl::StrCat("model.layers.0.self_attn.", name)] =
        MakeTensor("F32", {}, std::vector<float>{0.25f});
  }
  const auto report = Import(mobile.folder);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->static_scales_unused(), 3);
  mobile.folder.tensors[absl::StrCat(kUp, ".input_activation_scale")] =
      MakeTensor("F32", {2}, std::vector<float>{0.5f, 1});
  ASSERT_EQ(unlink(TestPath("out.gguf").c_str()), 0);
  ExpectRefused(mobile.folder, "CORRUPT_FILE", "expected one element");
}

TEST(MobileImportTest, ModulesThatAreNotConvertedAreFloats) {
  Mobile mobile = MakeMobile();
  for (const char* part : {".weight_scale", ".input_activation_scale",
                           ".output_activation_scale"}) {
    mobile.folder.tensors.erase(absl::StrCat(kUp, part));
  }
  mobile.folder.tensors[absl::StrCat(kUp, ".weight")] =
      MakeTensor("F32", {96, 64}, std::vector<float>(96 * 64, 0.25f));
  ExpectRefused(mobile.folder, "CORRUPT_FILE", "expected shape [96, 16]");
  mobile.quantization()["modules_to_not_convert"] = {kUp, "model.visual"};
  const auto report = Import(mobile.folder);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(Imported("blk.0.ffn_up.weight").second,
            std::vector<float>(96 * 64, 0.25f));
}

// As in folders of Gemma4ForConditionalGeneration.
TEST(MobileImportTest, ExpressionsSeeTheNamesOfTheWholeModel) {
  Mobile mobile = MakeMobile();
  std::map<std::string, TestTensor> renamed;
  for (const auto& [name, tensor] : mobile.folder.tensors) {
    renamed[name.rfind("model.", 0) == 0
                ? absl::StrCat("model.language_model.", name.substr(6))
                : name] = tensor;
  }
  renamed["model.vision_tower.q_proj.weight"] =
      MakeTensor("U8", {1}, std::vector<uint8_t>{1});
  mobile.folder.tensors = renamed;
  ordered_json text = mobile.folder.config;
  text.erase("quantization_config");
  text.erase("architectures");
  ordered_json quantization = mobile.quantization();
  quantization["module_quant_configs"] = {
      {"^lm_head", {{"num_bits", 2}}},
      {"^model.language_model.layers.0.mlp.(gate|up)", {{"num_bits", 2}}},
      {"^model.language_model.(.*mlp|.*[kv]_proj|embed)", {{"num_bits", 4}}}};
  mobile.folder.config = {{"architectures", {"Gemma3ForConditionalGeneration"}},
                          {"text_config", text},
                          {"quantization_config", quantization}};
  const auto report = Import(mobile.folder);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->groups_kept(), report->groups());
}

TEST(MobileImportTest, DamagedModulesAreRefusedByName) {
  const Mobile good = MakeMobile();
  const std::string scale = absl::StrCat(kUp, ".weight_scale");
  const std::string codes = absl::StrCat(kUp, ".weight");
  const std::string table = absl::StrCat(kEmbedding, ".embedding_quantized");
  const std::string parts = absl::StrCat(kEmbedding, ".embedding_scale");
  for (const std::string& name : {scale, codes, table, parts}) {
    TestFolder folder = good.folder;
    folder.tensors.erase(name);
    ExpectRefused(folder, "CORRUPT_FILE", "'" + name + "' is missing");
    folder = good.folder;
    folder.tensors[name] = MakeTensor("U8", {1}, std::vector<uint8_t>(1));
    ExpectRefused(folder, "CORRUPT_FILE", "'" + name + "': expected shape");
    folder = good.folder;
    TestTensor& tensor = folder.tensors[name];
    tensor.dtype = tensor.dtype == "U8" ? "I8" : "I32";
    ExpectRefused(folder, "CORRUPT_FILE", "'" + name + "' is ");
  }
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{96}, {1, 96}, {96, 1, 1}}) {
    TestFolder folder = good.folder;
    folder.tensors[scale].shape = shape;
    ExpectRefused(folder, "CORRUPT_FILE", "expected shape [96, 1]");
  }
  for (const int64_t bad : {0, 3, 4}) {  // no divisor; parts of 16
    TestFolder folder = good.folder;
    folder.tensors[parts] =
        MakeTensor("F32", {kVocab, bad}, std::vector<float>(kVocab * bad, 1));
    ExpectRefused(folder, bad == 4 ? "UNSUPPORTED_TENSOR" : "CORRUPT_FILE",
                  bad == 4 ? "whole groups" : "a divisor of 64");
  }
  for (const float bad : {std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    TestFolder folder = good.folder;
    std::vector<float> scales(96, 1.0f);
    scales[95] = bad;
    folder.tensors[scale] = MakeTensor("F32", {96, 1}, scales);
    ExpectRefused(folder, "UNSUPPORTED_TENSOR", "at element 95");
  }
  TestFolder folder = good.folder;
  folder.tensors[scale] =
      MakeTensor("F32", {96, 1}, std::vector<float>(96, 1e30f));
  ExpectRefused(folder, "UNSUPPORTED_TENSOR", "blk.0.ffn_up.weight");
  folder = good.folder;
  folder.tensors[absl::StrCat(kUp, ".zero_point")] =
      MakeTensor("F32", {96, 1}, std::vector<float>(96));
  ExpectRefused(folder, "UNSUPPORTED_TENSOR", "zero_point");
}

TEST(MobileImportTest, ConfigsThatDoNotFitTheTensorsAreRefused) {
  Mobile mobile = MakeMobile();
  mobile.quantization()["quantize_embeddings"] = false;
  ExpectRefused(mobile.folder, "CORRUPT_FILE",
                "'model.embed_tokens.weight' is missing");
  mobile = MakeMobile();
  mobile.quantization()["num_bits"] = 4;
  ExpectRefused(mobile.folder, "CORRUPT_FILE", "expected shape [64, 32]");
  mobile = MakeMobile();
  mobile.quantization()["num_bits"] = 5;
  ExpectRefused(mobile.folder, "UNSUPPORTED_QUANTIZATION", "num_bits");
  mobile = MakeMobile();
  mobile.quantization()["quant_method"] = "gemma2";
  ExpectRefused(mobile.folder, "UNSUPPORTED_QUANTIZATION", "gemma2");
}

// Some bytes are others, or the file ends early (fixed seed). Meant to be run
// with --config=asan too.
TEST(MobileImportTest, DamagedFoldersNeverCrash) {
  const std::string path = MakeMobile().folder.Write(TestPath("mobile"));
  std::mt19937 random(12);
  int refused = 0;
  for (int copy = 0; copy < 16; ++copy) {
    const std::string file =
        path + (copy % 2 == 0 ? "/config.json" : "/model.safetensors");
    const std::string good = *common::ReadFile(file);
    std::string bytes = good;
    for (int i = 0; i < 3; ++i) {
      char& byte = bytes[random() % std::min<size_t>(4000, bytes.size())];
      byte =
          static_cast<char>(random() % 4 == 0 ? random() : '0' + random() % 10);
    }
    if (copy % 8 == 3) bytes.resize(random() % bytes.size());
    ASSERT_TRUE(common::WriteFileAtomic(file, bytes).ok());
    const auto report = ImportHfFolder(path, TestPath("out.gguf"), {});
    refused += report.ok() ? 0 : 1;
    if (!report.ok()) {
      EXPECT_NE(common::ErrorReason(report.status()), "") << report.status();
    }
    ASSERT_TRUE(common::WriteFileAtomic(file, good).ok());
  }
  EXPECT_GT(refused, 5);
}

}  // namespace
}  // namespace onegrid::exporter
