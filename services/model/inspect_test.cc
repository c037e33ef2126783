#include "services/model/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/quant/ct_pack.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid.h"
#include "kernels/quant/grid_blocks.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_test_file.h"
#include "services/model/gguf_writer.h"
#include "services/model/hf_model_config.h"
#include "services/model/hf_tokenizer.h"
#include "services/model/safetensors.h"
#include "services/model/tensor_names.h"

namespace onegrid::model {
namespace {

using nlohmann::json;
using quant::GgmlType;
using quant::GridMatrix;
using ::testing::HasSubstr;

GemmaConfig TinyConfig() {
  GemmaConfig config;
  config.vocab_size = kTinyFirstNormal + 256;
  config.hidden = 64;
  config.layers =
      UniformLayers(2, 2, {.head_dim = 32, .kv_heads = 1, .ff = 96});
  config.heads = 2;
  config.sliding_window = 16;
  config.context_length = 1024;
  config.attention_scale = 1 / std::sqrt(32.0);
  return config;
}

template <typename T>
std::vector<uint8_t> BytesOf(const std::vector<T>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// A matrix of which every fourth scale is exact in f16, not in bf16.
GridMatrix Matrix(const quant::Grid& grid, int64_t rows, int64_t cols) {
  GridMatrix matrix{rows, cols, {}, {}, &grid};
  matrix.codes.assign(rows * cols, 1);
  for (int64_t g = 0; g < rows * cols / grid.group; ++g) {
    matrix.scales.push_back(g % 4 == 3 ? 1.0f + 0x1p-9f : 0.5f);
  }
  return matrix;
}

void AddBlocks(const std::string& name, const GridMatrix& matrix,
               GgufWriter& writer) {
  const auto blocks = quant::PackBlocks(matrix);
  ASSERT_TRUE(blocks.ok()) << blocks.status();
  ASSERT_TRUE(writer
                  .AddTensor(name, quant::BlockType(*matrix.grid),
                             {matrix.cols, matrix.rows}, *blocks)
                  .ok());
}

// Q4_0 linears, F32 norms, the embedding Q8_0 or BF16.
GgufWriter TinyOnGrids(GgmlType embedding = GgmlType::kQ8_0) {
  const GemmaConfig config = TinyConfig();
  GgufWriter writer;
  for (const auto& [key, value] : GemmaMetadata(config)) {
    writer.Set(key, value);
  }
  for (auto& [key, value] : TinyTokenizerMetadata({})) writer.Set(key, value);
  writer.Set("tokenizer.chat_template", std::string("{{ messages }}"));
  if (embedding == GgmlType::kBF16) {
    const std::vector<uint8_t> zeros(2 * config.vocab_size * config.hidden);
    EXPECT_TRUE(writer
                    .AddTensor(kGgufEmbedding, embedding,
                               {config.hidden, config.vocab_size}, zeros)
                    .ok());
  } else {
    AddBlocks(kGgufEmbedding,
              Matrix(quant::kInt8G32, config.vocab_size, config.hidden),
              writer);
  }
  for (const LinearSpec& spec : GemmaLinears(config)) {
    AddBlocks(spec.gguf_name, Matrix(quant::kInt4G32, spec.out, spec.in),
              writer);
  }
  for (const NormSpec& spec : GemmaNorms(config)) {
    EXPECT_TRUE(writer
                    .AddTensor(spec.gguf_name, GgmlType::kF32, {spec.size},
                               BytesOf(std::vector<float>(spec.size, 1)))
                    .ok());
  }
  return writer;
}

std::string WriteTiny(const std::string& name, const GgufWriter& writer) {
  const std::string path = WriteTestFile(name, "");
  EXPECT_TRUE(writer.WriteTo(path).ok());
  return path;
}

// Computed apart from this program, by Python's hashlib.
constexpr char kTokenizerSha[] =
    "4a755f58d9ac7267b4ed351810013acd1f9d2e7f77b235ffd9a1dd89822e68e1";

TEST(InspectTest, TextOfAGgufOnGrids) {
  const auto text = InspectModel(WriteTiny("tiny.gguf", TinyOnGrids()), {});
  ASSERT_TRUE(text.ok()) << text.status();
  // Of a layer: q 64x64, k and v 32x64, o 64x64, MLP 3 x 96x64. To serve:
  // 18 bytes for 32 weights, the embedding 34; two layers of 1024 tokens (the
  // sliding one 16 + 256 + 8 + 64, so 384) of 2 * 32 + 8 + 2 bytes.
  EXPECT_EQ(
      *text,
      absl::StrCat(
          "format         GGUF\n"
          "model          Gemma 3 text, not of a published size\n"
          "layers         2: 1 global, 1 with a window of 16 tokens\n"
          "width          hidden 64, MLP 96\n"
          "heads          2 of 32, key/value 1\n"
          "context        1024 tokens\n"
          "tensors        28, 79552 parameters\n"
          "               F32             13 tensors           704 "
          "parameters     0.0 MB\n"
          "               Q4_0            14 tensors         61440 "
          "parameters     0.0 MB\n"
          "               Q8_0             1 tensors         17408 "
          "parameters     0.0 MB\n"
          "scales         int4_g32     1440 of 1920 groups dual-exact "
          "(75.00 %)\n"
          "               int8_g32     408 of 544 groups dual-exact "
          "(75.00 %)\n"
          "tokenizer      SentencePiece BPE, 272 tokens, sha256 ",
          kTokenizerSha,
          "\n"
          "chat template  not known, sha256 "
          "f24189f08c85a1eb19a737306c3a13e85462ee33d964f28108d64a2485fa2171\n"
          "to serve       0.2 MB: weights as they are 0.1 MB, int8 cache "
          "of 1024 tokens 0.1 MB\n"
          "to tune        about 401.5 MB, or 385.7 MB with AVX-512 BF16: "
          "qlora_qat, rank 16, sequences of 1024 tokens\n"));
}

TEST(InspectTest, JsonHasTheSameNumbers) {
  const auto text = InspectModel(WriteTiny("tiny.gguf", TinyOnGrids()),
                                 {.context_tokens = 100, .json = true});
  ASSERT_TRUE(text.ok()) << text.status();
  const json found = json::parse(*text);
  EXPECT_EQ(found["format"], "GGUF");
  EXPECT_EQ(found["family"], "gemma3");
  EXPECT_EQ(found["size"], "");
  EXPECT_EQ(found["layers"], 2);
  EXPECT_EQ(found["global_layers"], 1);
  EXPECT_EQ(found["vocab_size"], 272);
  EXPECT_EQ(found["parameters"], 61440 + 17408 + 704);
  EXPECT_EQ(found["types"][1], json({{"type", "Q4_0"},
                                     {"tensors", 14},
                                     {"parameters", 61440},
                                     {"bytes", 61440 / 32 * 18}}));
  EXPECT_EQ(
      found["grids"][0],
      json({{"grid", "int4_g32"}, {"groups", 1920}, {"dual_exact", 1440}}));
  EXPECT_EQ(found["tokenizer"]["tokens"], 272);
  EXPECT_EQ(found["tokenizer"]["sha256"], kTokenizerSha);
  EXPECT_EQ(found["chat_template"]["known"], false);
  // 100 tokens take two pages of 64, in both kinds of layers.
  EXPECT_EQ(found["serve"]["kv_bytes"], 2 * 128 * 74);
  EXPECT_EQ(found["serve"]["weight_bytes"],
            61440 / 32 * 18 + 272 * 64 / 32 * 34);
  EXPECT_EQ(found["serve"]["form"], "as they are");
  EXPECT_EQ(found["tune"]["mode"], "qlora_qat");
  EXPECT_GT(found["tune"]["bytes_f32"], found["tune"]["bytes_bf16"]);
  const auto shorter = InspectModel(
      WriteTiny("tiny.gguf", TinyOnGrids()),
      {.context_tokens = 100, .sequence_tokens = 8, .rank = 1, .json = true});
  ASSERT_TRUE(shorter.ok()) << shorter.status();
  const json less = json::parse(*shorter)["tune"];
  EXPECT_EQ(less["rank"], 1);
  EXPECT_LT(less["bytes_f32"], found["tune"]["bytes_f32"]);
}

TEST(InspectTest, Bf16MatricesOfAGgufAreServedAsTheyAre) {
  const auto text = InspectModel(
      WriteTiny("bf16.gguf", TinyOnGrids(GgmlType::kBF16)), {.json = true});
  ASSERT_TRUE(text.ok()) << text.status();
  const json serve = json::parse(*text)["serve"];
  EXPECT_EQ(serve["form"], "as they are");
  EXPECT_EQ(serve["weight_bytes"], 61440 / 32 * 18 + 272 * 64 * 2);
}

TEST(InspectTest, AMatrixThatIsNotOnAGridMeansAnImport) {
  GgufWriter writer = TinyGemma3();  // F32, hidden 8
  const auto text = InspectModel(WriteTiny("f32.gguf", writer), {});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, HasSubstr("scales         none on a grid\n"));
  EXPECT_THAT(*text, HasSubstr("chat template  none\n"));
  EXPECT_THAT(*text, HasSubstr("to serve       not possible: heads of 2"));
}

TEST(InspectTest, TensorsThatAreNotTheModelsAreNamedWithoutControlCharacters) {
  GgufWriter writer = TinyOnGrids();
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(writer
                    .AddTensor(absl::StrCat("odd", i, "\x1b\xff"),
                               GgmlType::kF32, {1}, std::vector<uint8_t>(4))
                    .ok());
  }
  const std::string path = WriteTiny("odd.gguf", writer);
  EXPECT_THAT(*InspectModel(path, {}),
              HasSubstr("not imported   6 other tensors: odd0\\x1b\\xff "));
  const auto text = InspectModel(path, {.json = true});
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(json::parse(*text)["other_tensors"].size(), 6u);
}

// A Hugging Face folder with the tokenizer of TinyOnGrids.
class Folder {
 public:
  explicit Folder(const std::string& name)
      : path_(WriteTestFile(name, "") + ".d") {
    EXPECT_TRUE(common::MakeFolder(path_).ok());
    const auto gguf = GgufFile::Open(WriteTiny("tiny.gguf", TinyOnGrids()));
    const auto files = HfTokenizerFiles(**gguf);
    EXPECT_TRUE(files.ok()) << files.status();
    for (const auto& [file, contents] : *files) Write(file, contents);
  }
  void Write(const std::string& file, const std::string& contents) {
    EXPECT_TRUE(
        common::WriteFileAtomic(absl::StrCat(path_, "/", file), contents).ok());
  }
  // The norms, the embedding and the linears: BF16, or packed 4-bit of group 32
  // but for the tensors in `skip`.
  void WriteWeights(bool packed, const std::string& skip = "") {
    const GemmaConfig config = TinyConfig();
    SafetensorsWriter writer;
    const auto add = [&](const std::string& name, const std::string& dtype,
                         std::vector<int64_t> shape,
                         std::vector<uint8_t> data) {
      if (name == skip) return;
      EXPECT_TRUE(writer.Add(name, dtype, shape, std::move(data)).ok());
    };
    for (const LinearSpec& spec : GemmaLinears(config)) {
      if (!packed) {
        add(spec.hf_name + ".weight", "BF16", {spec.out, spec.in},
            std::vector<uint8_t>(spec.out * spec.in * 2));
        continue;
      }
      const GridMatrix matrix = Matrix(quant::kInt4G32, spec.out, spec.in);
      const auto words = quant::PackCt(matrix.codes, spec.out, spec.in, 4);
      add(spec.hf_name + ".weight_packed", "I32", {spec.out, spec.in / 8},
          BytesOf(*words));
      add(spec.hf_name + ".weight_scale", "F32", {spec.out, spec.in / 32},
          BytesOf(matrix.scales));
      add(spec.hf_name + ".weight_shape", "I64", {2},
          BytesOf(std::vector<int64_t>{spec.out, spec.in}));
    }
    add(kHfEmbedding, "BF16", {config.vocab_size, config.hidden},
        std::vector<uint8_t>(config.vocab_size * config.hidden * 2));
    for (const NormSpec& spec : GemmaNorms(config)) {
      add(spec.hf_name, "BF16", {spec.size},
          std::vector<uint8_t>(spec.size * 2));
    }
    EXPECT_TRUE(writer.WriteTo(absl::StrCat(path_, "/model.safetensors")).ok());
  }
  void WriteConfig(const std::string& quantization) {
    const auto config = HfConfigJson(TinyConfig(), "bfloat16", quantization);
    ASSERT_TRUE(config.ok()) << config.status();
    Write("config.json", *config);
  }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

constexpr char kInt4[] =
    R"({"quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights":
          {"num_bits": 4, "strategy": "group", "group_size": 32}}}})";

json Inspect(const std::string& path) {
  const auto text = InspectModel(path, {.json = true});
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? json::parse(*text) : json();
}

void ExpectRefused(const std::string& path, const std::string& reason,
                   const std::string& message) {
  const auto text = InspectModel(path, {});
  ASSERT_FALSE(text.ok()) << "expected: " << message;
  EXPECT_EQ(common::ErrorReason(text.status()), reason) << text.status();
  EXPECT_THAT(std::string(text.status().message()), HasSubstr(message));
}

TEST(InspectTest, AFolderOfFloats) {
  Folder folder("floats");
  folder.WriteConfig("");
  folder.WriteWeights(/*packed=*/false);
  const json found = Inspect(folder.path());
  EXPECT_EQ(found["format"], "safetensors");
  EXPECT_EQ(found["tensors"], 28);
  EXPECT_EQ(found["types"][0]["type"], "BF16");
  EXPECT_EQ(found["grids"].size(), 0u);
  EXPECT_EQ(found["tokenizer"]["tokens"], 272);
  EXPECT_EQ(found["serve"]["form"], "imported");
  EXPECT_EQ(found["serve"]["weight_bytes"],
            61440 / 32 * 18 + 272 * 64 / 32 * 34);
}

TEST(InspectTest, AFolderOfPackedWeights) {
  Folder folder("packed");
  folder.WriteConfig(kInt4);
  folder.WriteWeights(/*packed=*/true);
  const json found = Inspect(folder.path());
  EXPECT_EQ(found["format"], "compressed-tensors");
  EXPECT_EQ(found["tensors"], 28);
  EXPECT_EQ(found["types"][1]["type"], "int4_g32");
  EXPECT_EQ(found["types"][1]["parameters"], 61440);
  EXPECT_EQ(found["types"][1]["bytes"], 61440 / 2 + 61440 / 32 * 4 + 14 * 16);
  EXPECT_EQ(
      found["grids"],
      json::parse(
          R"([{"grid": "int4_g32", "groups": 1920, "dual_exact": 1440}])"));
  EXPECT_EQ(found["other_tensors"].size(), 0u);
  EXPECT_EQ(found["serve"]["form"], "as GGUF of the same grids");
}

TEST(InspectTest, PackedWeightsThatContradictTheirConfigAreRefused) {
  Folder folder("contradiction");
  folder.WriteWeights(/*packed=*/true);
  std::string other = kInt4;
  other.replace(other.find("\"num_bits\": 4"), 13, "\"num_bits\": 8");
  folder.WriteConfig(other);
  ExpectRefused(folder.path(), "CORRUPT_FILE", "fits no config group");
  folder.WriteConfig(R"({"quant_method": "gptq"})");
  ExpectRefused(folder.path(), "UNSUPPORTED_QUANTIZATION", "found \"gptq\"");
  folder.WriteConfig(R"({"quant_method": "compressed-tensors"})");
  ExpectRefused(folder.path(), "CORRUPT_FILE", "config_groups");
  folder.WriteConfig(kInt4);
  const std::string module = "model.layers.1.mlp.up_proj";
  folder.WriteWeights(/*packed=*/true, module + ".weight_scale");
  ExpectRefused(folder.path(), "CORRUPT_FILE",
                "'" + module + ".weight_scale' is missing");
  folder.WriteWeights(/*packed=*/true, module + ".weight_packed");
  ExpectRefused(folder.path(), "CORRUPT_FILE",
                "'" + module + ".weight' is missing");
}

TEST(InspectTest, GroupsOfAnySizeAreRead) {
  Folder folder("groups");
  folder.WriteWeights(/*packed=*/true);
  std::string other = kInt4;
  other.replace(other.find("\"group_size\": 32"), 16,
                "\"group_size\": 9223372036854775807");
  folder.WriteConfig(other);
  ExpectRefused(folder.path(), "CORRUPT_FILE", "fits no config group");
}

// The vocabulary is filled up to that many tokens.
TEST(InspectTest, RowsThatTheEmbeddingHasNotAreRefusedFirst) {
  Folder folder("rows");
  folder.WriteWeights(/*packed=*/false);
  GemmaConfig config = TinyConfig();
  config.vocab_size = 1 << 24;
  folder.Write("config.json", *HfConfigJson(config, "bfloat16", ""));
  folder.Write("tokenizer.model", "not a tokenizer");
  ExpectRefused(folder.path(), "CORRUPT_FILE", "expected shape [16777216, ");
}

TEST(InspectTest, BadFoldersAreRefused) {
  Folder folder("bad");
  ExpectRefused(folder.path(), "FILE_NOT_FOUND", "config.json");
  folder.WriteConfig("");
  EXPECT_EQ(InspectModel(folder.path(), {}).status().code(),
            absl::StatusCode::kNotFound);
  folder.WriteWeights(/*packed=*/false, "model.norm.weight");
  ExpectRefused(folder.path(), "CORRUPT_FILE",
                "'model.norm.weight' is missing");
  folder.WriteWeights(/*packed=*/false);
  folder.Write("config.json", R"({"architectures": ["LlamaForCausalLM"]})");
  ExpectRefused(folder.path(), "UNSUPPORTED_ARCHITECTURE", "LlamaForCausalLM");
  folder.Write("config.json", "[");
  ExpectRefused(folder.path(), "CORRUPT_FILE", "config.json");
  folder.Write("config.json", absl::StrCat(R"({"quantization_config":)",
                                           std::string(1000000, '['),
                                           std::string(1000000, ']'), "}"));
  ExpectRefused(folder.path(), "CORRUPT_FILE", "deep");
}

TEST(InspectTest, BadGgufFilesAreRefused) {
  ExpectRefused(WriteTestFile("text.gguf", "not a model"), "CORRUPT_FILE",
                "not a GGUF file");
  GgufWriter llama = TinyOnGrids();
  llama.Set("general.architecture", std::string("llama"));
  ExpectRefused(WriteTiny("llama.gguf", llama), "UNSUPPORTED_ARCHITECTURE",
                "found 'llama'");
  GgufWriter deeper = TinyOnGrids();
  deeper.Set("gemma3.block_count", uint32_t{3});
  ExpectRefused(WriteTiny("deeper.gguf", deeper), "CORRUPT_FILE",
                "'blk.2.attn_q.weight' is missing");
  GgufWriter odd_tokenizer = TinyOnGrids();
  odd_tokenizer.Set("tokenizer.ggml.model", std::string("gpt2"));
  ExpectRefused(WriteTiny("gpt2.gguf", odd_tokenizer), "UNSUPPORTED_TOKENIZER",
                "gpt2");
  std::string bytes = ReadTestFile(WriteTiny("tiny.gguf", TinyOnGrids()));
  for (const size_t size : {size_t{0}, size_t{30}, bytes.size() / 2}) {
    ExpectRefused(WriteTestFile("cut.gguf", bytes.substr(0, size)),
                  "CORRUPT_FILE", "cut.gguf");
  }
  const auto file = GgufFile::Open(WriteTestFile("nan.gguf", bytes));
  ASSERT_TRUE(file.ok());
  const size_t at =
      bytes.size() - ((*file)->tensors().back().data.end() -
                      (*file)->Find("blk.1.ffn_up.weight")->data.begin());
  bytes[at + 1] = 0x7C;  // An infinite scale.
  bytes[at] = 0;
  ExpectRefused(WriteTestFile("nan.gguf", bytes), "CORRUPT_FILE",
                "'blk.1.ffn_up.weight'");
  EXPECT_EQ(InspectModel("/nonexistent.gguf", {}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(InspectTest, AContextBelowOneIsRefused) {
  EXPECT_EQ(
      common::ErrorReason(InspectModel("x", {.context_tokens = 0}).status()),
      "INVALID_OPTION");
}

}  // namespace
}  // namespace onegrid::model
