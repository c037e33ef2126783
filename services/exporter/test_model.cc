#include "services/exporter/test_model.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gtest/gtest.h"
#include "kernels/quant/q4_0.h"
#include "kernels/quant/q8_0.h"
#include "services/common/files.h"
#include "services/exporter/grid_model.h"
#include "services/exporter/importer.h"
#include "services/model/gguf_writer.h"
#include "services/model/safetensors.h"

namespace onegrid::exporter {
namespace {

using quant::GgmlType;

constexpr int64_t kHidden = 64;
constexpr int64_t kFf = 96;
constexpr int64_t kHeadDim = 32;
constexpr int64_t kVocab = 300;
constexpr int64_t kRank = 4;

void Require(const absl::Status& status) {
  if (status.ok()) return;
  ADD_FAILURE() << status;
  std::abort();
}

template <typename T>
T Require(absl::StatusOr<T> value) {
  Require(value.status());
  return *std::move(value);
}

template <typename T>
std::vector<uint8_t> BytesOf(const std::vector<T>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

class Builder {
 public:
  explicit Builder(const TestModelOptions& options) : options_(options) {}

  std::vector<float> Random(int64_t count, float deviation) {
    std::normal_distribution<float> normal(0, deviation);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random_);
    return values;
  }

  void Matrix(const std::string& name, int64_t rows, int64_t cols,
              GgmlType type) {
    std::vector<float> w = Random(rows * cols, 0.05f);
    if (options_.nan_weight && name == "blk.0.ffn_up.weight") {
      w[5] = std::numeric_limits<float>::quiet_NaN();
    }
    std::vector<uint8_t> bytes = BytesOf(w);
    if (type == GgmlType::kQ4_0) {
      bytes = Require(quant::EncodeQ4_0(w, rows, cols));
    } else if (type == GgmlType::kQ8_0) {
      bytes = Require(quant::EncodeQ8_0(w, rows, cols));
    } else if (type == GgmlType::kIQ4_NL) {
      bytes = RandomCodes({0x66, 0x12}, rows * cols / 32);  // f16 0.00078
    } else if (type == GgmlType::kMXFP4) {
      bytes = RandomCodes({122}, rows * cols / 32);  // 2^-6
    }
    Require(writer_.AddTensor(name, type, {cols, rows}, std::move(bytes)));
  }

  // Blocks of 32 random 4-bit codes behind one scale.
  std::vector<uint8_t> RandomCodes(const std::vector<uint8_t>& scale,
                                   int64_t blocks) {
    std::vector<uint8_t> bytes;
    for (int64_t i = 0; i < blocks; ++i) {
      bytes.insert(bytes.end(), scale.begin(), scale.end());
      for (int j = 0; j < 16; ++j) bytes.push_back(random_() & 255);
    }
    return bytes;
  }

  void Linear(const std::string& part, int64_t out, int64_t in) {
    Matrix(absl::StrCat("blk.0.", part, ".weight"), out, in, options_.linears);
  }

  void Norm(const std::string& name, int64_t size) {
    std::vector<float> w = Random(size, 0.2f);
    for (float& value : w) value += 1;
    Require(writer_.AddTensor(name, GgmlType::kF32, {size}, BytesOf(w)));
  }

  void Metadata() {
    writer_.Set("general.architecture", options_.architecture);
    const std::pair<const char*, uint32_t> sizes[] = {
        {"context_length", 256},
        {"embedding_length", kHidden},
        {"block_count", 1},
        {"feed_forward_length", kFf},
        {"attention.head_count", 2},
        {"attention.head_count_kv", 1},
        {"attention.key_length", kHeadDim},
        {"attention.value_length", kHeadDim},
        {"attention.sliding_window", 16}};
    for (const auto& [key, value] : sizes) {
      writer_.Set(absl::StrCat("gemma3.", key), value);
    }
    writer_.Set("gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
    writer_.Set("gemma3.rope.freq_base", 1e6f);
    Tokenizer();
  }

  void Tokenizer() {
    std::vector<std::string> tokens = {"<pad>", "<eos>", "<bos>", "<unk>"};
    std::vector<int32_t> types = {3, 3, 3, 2};
    for (int byte = 0; byte < 256; ++byte) {
      tokens.push_back(absl::StrFormat("<0x%02X>", byte));
      types.push_back(6);
    }
    while (tokens.size() < kVocab) {
      tokens.push_back(absl::StrCat("t", tokens.size()));
      types.push_back(1);
    }
    writer_.Set("tokenizer.ggml.model", std::string("llama"));
    writer_.Set("tokenizer.ggml.add_space_prefix", false);
    writer_.Set("tokenizer.ggml.scores", std::vector<float>(kVocab, 0.f));
    writer_.Set("tokenizer.ggml.tokens", std::move(tokens));
    writer_.Set("tokenizer.ggml.token_type", std::move(types));
    writer_.Set("tokenizer.ggml.padding_token_id", uint32_t{0});
    writer_.Set("tokenizer.ggml.eos_token_id", uint32_t{1});
    writer_.Set("tokenizer.ggml.bos_token_id", uint32_t{2});
    writer_.Set("tokenizer.ggml.unknown_token_id", uint32_t{3});
  }

  void Tensors() {
    Matrix("token_embd.weight", kVocab, kHidden, options_.embedding);
    Norm("blk.0.attn_norm.weight", kHidden);
    Linear("attn_q", 2 * kHeadDim, kHidden);
    Linear("attn_k", kHeadDim, kHidden);
    Linear("attn_v", kHeadDim, kHidden);
    Norm("blk.0.attn_q_norm.weight", kHeadDim);
    Norm("blk.0.attn_k_norm.weight", kHeadDim);
    Linear("attn_output", kHidden, 2 * kHeadDim);
    Norm("blk.0.post_attention_norm.weight", kHidden);
    Norm("blk.0.ffn_norm.weight", kHidden);
    Linear("ffn_gate", kFf, kHidden);
    Linear("ffn_up", kFf, kHidden);
    Linear("ffn_down", kHidden, kFf);
    Norm("blk.0.post_ffw_norm.weight", kHidden);
    Norm("output_norm.weight", kHidden);
    if (!options_.extra_tensor.empty()) Norm(options_.extra_tensor, 8);
  }

  void WriteTo(const std::string& path) { Require(writer_.WriteTo(path)); }

 private:
  const TestModelOptions options_;
  std::mt19937 random_{7};
  model::GgufWriter writer_;
};

}  // namespace

std::string TestPath(const std::string& name) {
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string folder = absl::StrCat(
      testing::TempDir(), "/", test->test_suite_name(), ".", test->name());
  Require(common::MakeFolder(folder));
  return absl::StrCat(folder, "/", name);
}

std::string WriteTestModel(const std::string& name,
                           const TestModelOptions& options) {
  const std::string path = TestPath(name);
  Builder builder(options);
  builder.Metadata();
  builder.Tensors();
  builder.WriteTo(path);
  return path;
}

std::string ImportTestModel() {
  const std::string base = TestPath("base.gguf");
  Require(ImportGguf(WriteTestModel("source.gguf"), base, {}).status());
  return base;
}

TestFolded FoldTestModel(const std::string& base) {
  const auto grid = Require(GridModel::Open(base, ""));
  TestFolded folded;
  for (const model::LinearSpec& spec : grid->linears()) {
    quant::GridMatrix matrix = Require(grid->Linear(spec));
    for (int64_t row = 0; row < spec.out; ++row) {
      int8_t& code = matrix.codes[row * spec.in];
      code += code < matrix.grid->max_code ? 1 : -1;
    }
    folded.matrices[spec.gguf_name] = std::move(matrix);
  }
  return folded;
}

TestFolded FoldTestModelMixed(const std::string& base) {
  const auto model = Require(GridModel::Open(base, ""));
  TestFolded folded = FoldTestModel(base);
  folded.matrices["token_embd.weight"] = Require(model->Embedding());
  const std::pair<const char*, const quant::Grid*> plan[] = {
      {"blk.0.attn_q.weight", &quant::kInt8G32},
      {"blk.0.attn_k.weight", &quant::kInt8G32},
      {"blk.0.ffn_gate.weight", &quant::kInt2G64},
      {"blk.0.ffn_up.weight", &quant::kInt2G64},
      {"token_embd.weight", &quant::kInt4G32}};
  for (const auto& [name, grid] : plan) {
    quant::GridMatrix& matrix = folded.matrices[name];
    std::vector<float> values(matrix.codes.size());
    quant::DequantizeMatrix(matrix, absl::MakeSpan(values));
    matrix =
        Require(quant::EncodeMatrix(values, matrix.rows, matrix.cols, *grid));
    absl::StrAppend(&folded.grids, folded.grids.empty() ? "{" : ", ", "\"",
                    name, "\": \"", grid->name, "\"");
  }
  folded.grids += "}";
  folded.norms["blk.0.ffn_norm.weight"] = std::vector<float>(kHidden, 1.25f);
  return folded;
}

void WriteTestFolded(const TestFolded& folded, const std::string& path) {
  model::SafetensorsWriter writer;
  for (const auto& [name, matrix] : folded.matrices) {
    const auto groups = static_cast<int64_t>(matrix.scales.size());
    Require(writer.Add(absl::StrCat(name, ".scales"), "F32",
                       {matrix.rows, groups / matrix.rows},
                       BytesOf(matrix.scales)));
    Require(writer.Add(absl::StrCat(name, ".codes"), "I8",
                       {matrix.rows, matrix.cols}, BytesOf(matrix.codes)));
  }
  for (const auto& [name, values] : folded.norms) {
    Require(writer.Add(name, "F32", {static_cast<int64_t>(values.size())},
                       BytesOf(values)));
  }
  if (!folded.grids.empty()) writer.SetMetadata("grids", folded.grids);
  Require(writer.WriteTo(path));
}

TestTuned WriteTestTuned(const std::string& base) {
  const TestTuned paths = {TestPath("folded.safetensors"),
                           TestPath("adapter.safetensors"),
                           TestPath("adapter_config.json")};
  WriteTestFolded(FoldTestModel(base), paths.folded);
  const auto grid = Require(GridModel::Open(base, ""));
  model::SafetensorsWriter adapter;
  for (const model::LinearSpec& spec : grid->linears()) {
    const std::string stem =
        absl::StrCat("base_model.model.", spec.hf_name, ".lora_");
    Require(adapter.Add(
        stem + "A.weight", "F32", {kRank, spec.in},
        BytesOf(std::vector<float>(kRank * spec.in, 0.25f + spec.in))));
    Require(adapter.Add(
        stem + "B.weight", "F32", {spec.out, kRank},
        BytesOf(std::vector<float>(spec.out * kRank, -0.5f - spec.out))));
  }
  Require(adapter.WriteTo(paths.adapter));
  Require(common::WriteFileAtomic(
      paths.adapter_config,
      R"({"r": 4, "lora_alpha": 8, "bias": "none", "use_dora": false})"));
  return paths;
}

}  // namespace onegrid::exporter
