#include "services/model/adapter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/quant/ggml_types.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/gguf_writer.h"
#include "services/model/safetensors.h"

namespace onegrid::model {
namespace {

using quant::GgmlType;

constexpr int64_t kIn = 4;
constexpr int64_t kOut = 3;
// Ranks of q, k and v in layer 0 and of q in layer 1.
constexpr int64_t kRanks[] = {4, 2, 4, 8};

std::vector<uint8_t> ToBytes(const std::vector<float>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::vector<uint8_t> Bytes(int64_t count, float first) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    values.push_back(first + 0.1f * static_cast<float>(i));
  }
  return ToBytes(values);
}

float At(absl::Span<const uint8_t> bytes, size_t i) {
  float value;
  std::memcpy(&value, bytes.data() + i * sizeof(float), sizeof(float));
  return value;
}

std::vector<LinearSpec> Specs() {
  std::vector<LinearSpec> specs;
  for (const char* kind : {"q", "k", "v"}) {
    specs.push_back({absl::StrCat("blk.0.attn_", kind, ".weight"),
                     absl::StrCat("model.layers.0.self_attn.", kind, "_proj"),
                     absl::StrCat(kind, "_proj"), 0, kOut, kIn});
  }
  specs.push_back({"blk.1.attn_q.weight", "model.layers.1.self_attn.q_proj",
                   "q_proj", 1, kOut, kIn});
  return specs;
}

std::string Path(const std::string& name) {
  const std::string folder = absl::StrCat(
      testing::TempDir(), "/",
      testing::UnitTest::GetInstance()->current_test_info()->name());
  std::filesystem::create_directories(folder);
  return absl::StrCat(folder, "/", name);
}

// A tensor of a PEFT file.
struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;
  std::string dtype = "F32";
};

absl::StatusOr<std::unique_ptr<Adapter>> OpenTensors(
    const std::vector<Tensor>& tensors, const std::string& config,
    const std::vector<LinearSpec>& specs = Specs()) {
  const std::string path = Path("adapter_model.safetensors");
  const std::string config_path = Path("adapter_config.json");
  SafetensorsWriter writer;
  for (const Tensor& t : tensors) {
    EXPECT_TRUE(writer.Add(t.name, t.dtype, t.shape, t.bytes).ok()) << t.name;
  }
  EXPECT_TRUE(writer.WriteTo(path).ok());
  EXPECT_TRUE(common::WriteFileAtomic(config_path, config).ok());
  return Adapter::OpenPeft(path, config_path, specs);
}

// The pairs of all of Specs, of kRanks.
std::vector<Tensor> AllTensors() {
  std::vector<Tensor> tensors;
  const std::vector<LinearSpec> specs = Specs();
  for (size_t i = 0; i < specs.size(); ++i) {
    const std::string stem =
        absl::StrCat("base_model.model.", specs[i].hf_name, ".lora_");
    const float first = static_cast<float>(i + 1);
    tensors.push_back(
        {stem + "A.weight", {kRanks[i], kIn}, Bytes(kRanks[i] * kIn, first)});
    tensors.push_back({stem + "B.weight",
                       {kOut, kRanks[i]},
                       Bytes(kOut * kRanks[i], -first)});
  }
  return tensors;
}

constexpr char kRankPattern[] =
    R"("rank_pattern": {"k_proj": 2, "layers.1.self_attn.q_proj": 8})";

absl::StatusOr<std::unique_ptr<Adapter>> OpenAll(const std::string& fields) {
  return OpenTensors(AllTensors(), absl::StrCat(R"({"r": 4, "lora_alpha": 8, )",
                                                fields, kRankPattern, "}"));
}

// The q_proj of layer 0 alone, of rank 2.
constexpr char kConfig[] = R"({"r": 2, "lora_alpha": 8})";
constexpr char kStem[] = "base_model.model.model.layers.0.self_attn.q_proj.";
std::vector<Tensor> OnePair() {
  return {
      {absl::StrCat(kStem, "lora_A.weight"), {2, kIn}, Bytes(2 * kIn, 1)},
      {absl::StrCat(kStem, "lora_B.weight"), {kOut, 2}, Bytes(kOut * 2, 2)}};
}

TEST(AdapterTest, PatternsGiveEachModuleItsRankAndScale) {
  const auto adapter = OpenAll(R"("alpha_pattern": {"v_proj": 6}, )");
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  const double scales[] = {8.0 / 4, 8.0 / 2, 6.0 / 4, 8.0 / 8};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ((*adapter)->pairs()[i].rank, kRanks[i]);
    EXPECT_EQ((*adapter)->pairs()[i].scale, scales[i]);
  }
  // Three of four pairs want an alpha of 8.
  EXPECT_EQ((*adapter)->gguf_alpha(), 8);
}

TEST(AdapterTest, LlamaCppsScaleTimesItsBIsPeftsScaleTimesB) {
  for (const char* options :
       {R"("use_rslora": false, )", R"("use_rslora": true, )",
        R"("use_rslora": true, "alpha_pattern": {"v_proj": 5}, )",
        R"("alpha_pattern": {"q_proj": 3, "v_proj": 5}, )"}) {
    const auto adapter = OpenAll(options);
    ASSERT_TRUE(adapter.ok()) << adapter.status();
    int same = 0;
    for (const AdapterPair& pair : (*adapter)->pairs()) {
      const std::vector<uint8_t> b = (*adapter)->GgufB(pair);
      ASSERT_EQ(b.size(), pair.b.size());
      same += std::memcmp(b.data(), pair.b.data(), b.size()) == 0;
      const float scale =
          (*adapter)->gguf_alpha() / static_cast<float>(pair.rank);
      for (size_t i = 0; i < b.size() / sizeof(float); ++i) {
        const double expected = pair.scale * At(pair.b, i);
        // One rounding of each of alpha, scale, factor times B.
        EXPECT_NEAR(scale * At(b, i), expected, 4e-7 * std::fabs(expected));
      }
    }
    EXPECT_GE(same, 1) << options;
  }
}

TEST(AdapterTest, RankStabilizedAdaptersOfOneRankKeepTheirB) {
  const auto adapter = OpenAll(R"("use_rslora": true, )");
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  // alpha sqrt(rank), of the two pairs of rank 4.
  EXPECT_EQ((*adapter)->gguf_alpha(), 16);
  const AdapterPair& pair = (*adapter)->pairs()[0];
  EXPECT_EQ(pair.scale, 4);
  EXPECT_EQ(pair.alpha, 8);
  const std::vector<uint8_t> b = (*adapter)->GgufB(pair);
  EXPECT_EQ(std::memcmp(b.data(), pair.b.data(), b.size()), 0);
}

TEST(AdapterTest, RanksMustBeTheConfigs) {
  EXPECT_EQ(
      common::ErrorReason(
          OpenTensors(AllTensors(), R"({"r": 4, "lora_alpha": 8})").status()),
      "CORRUPT_FILE");
}

TEST(AdapterTest, NamesOfMultimodalCheckpointsAreTheTextModels) {
  for (const char* prefix : {"model.layers.", "model.language_model.layers.",
                             "language_model.model.layers."}) {
    std::vector<Tensor> tensors = OnePair();
    for (Tensor& t : tensors) {
      t.name = absl::StrReplaceAll(t.name, {{"model.layers.", prefix}});
    }
    // A pattern is on the file's names.
    const auto adapter = OpenTensors(
        tensors,
        absl::StrCat(R"({"r": 4, "lora_alpha": 8, "rank_pattern": {"^)", prefix,
                     R"(0.self_attn.q_proj": 2}})"));
    ASSERT_TRUE(adapter.ok()) << adapter.status();
    ASSERT_EQ((*adapter)->pairs().size(), 1);
    const AdapterPair& pair = (*adapter)->pairs()[0];
    EXPECT_EQ(pair.spec.hf_name, "model.layers.0.self_attn.q_proj");
    EXPECT_EQ(pair.a_name, absl::StrCat(kStem, "lora_A.weight"));
    EXPECT_EQ(pair.a, absl::MakeConstSpan(OnePair()[0].bytes));
  }
}

TEST(AdapterTest, TheHeadOfAMultimodalCheckpointIsTheTextModels) {
  std::vector<LinearSpec> specs = {Specs()[0]};
  specs[0].hf_name = "lm_head";
  for (const char* head : {"lm_head", "language_model.lm_head"}) {
    std::vector<Tensor> tensors = OnePair();
    for (Tensor& t : tensors) {
      t.name = absl::StrReplaceAll(t.name,
                                   {{"model.layers.0.self_attn.q_proj", head}});
    }
    const auto adapter = OpenTensors(tensors, kConfig, specs);
    ASSERT_TRUE(adapter.ok()) << adapter.status();
    EXPECT_EQ((*adapter)->pairs()[0].spec.hf_name, "lm_head");
  }
}

TEST(AdapterTest, HalfFloatsAreDecodedExactly) {
  // 1 and -0.5 in f16, then in bf16.
  const std::vector<uint8_t> halves[] = {{0x00, 0x3c, 0x00, 0xb8},
                                         {0x80, 0x3f, 0x00, 0xbf}};
  const char* const types[] = {"F16", "BF16"};
  for (int i = 0; i < 2; ++i) {
    std::vector<Tensor> tensors = OnePair();
    tensors[0].dtype = types[i];
    tensors[0].bytes.clear();
    for (int64_t j = 0; j < kIn; ++j) {
      tensors[0].bytes.insert(tensors[0].bytes.end(), halves[i].begin(),
                              halves[i].end());
    }
    const auto adapter = OpenTensors(tensors, kConfig);
    ASSERT_TRUE(adapter.ok()) << adapter.status();
    const AdapterPair& pair = (*adapter)->pairs()[0];
    for (size_t j = 0; j < 2 * kIn; ++j) {
      EXPECT_EQ(At(pair.a, j), j % 2 == 0 ? 1.0f : -0.5f);
    }
  }
}

TEST(AdapterTest, TensorsOfNoLinearAreRefusedByName) {
  const std::string stem = "base_model.model.";
  for (const std::string& name : std::vector<std::string>{
           stem + "model.embed_tokens.lora_embedding_A",
           stem + "model.layers.0.self_attn.q_proj.lora_magnitude_vector",
           stem + "model.layers.0.self_attn.q_proj.lora_B.bias",
           stem + "lm_head.weight", stem + "model.norm.weight",
           "model.layers.0.self_attn.k_proj.lora_A.weight"}) {
    std::vector<Tensor> tensors = OnePair();
    tensors.push_back({name, {1}, Bytes(1, 1)});
    const absl::Status status = OpenTensors(tensors, kConfig).status();
    EXPECT_EQ(common::ErrorReason(status), "UNSUPPORTED_ADAPTER") << name;
    EXPECT_NE(status.message().find(name), std::string::npos) << status;
  }
  std::vector<Tensor> tensors = OnePair();
  tensors[0].dtype = "I32";
  EXPECT_EQ(common::ErrorReason(OpenTensors(tensors, kConfig).status()),
            "UNSUPPORTED_ADAPTER");
}

TEST(AdapterTest, LinearsThatTheBaseHasNotAreRefusedByName) {
  for (const char* module : {"model.layers.7.self_attn.q_proj", "lm_head",
                             "model.vision_tower.layers.0.self_attn.q_proj"}) {
    std::vector<Tensor> tensors = OnePair();
    for (const Tensor& t : OnePair()) {
      tensors.push_back(t);
      tensors.back().name = absl::StrReplaceAll(
          t.name, {{"model.layers.0.self_attn.q_proj", module}});
    }
    const absl::Status status = OpenTensors(tensors, kConfig).status();
    EXPECT_EQ(common::ErrorReason(status), "ADAPTER_MISMATCH") << module;
    EXPECT_NE(status.message().find(module), std::string::npos) << status;
  }
}

TEST(AdapterTest, MatricesThatDoNotFitAreRefused) {
  const auto reason = [](const std::vector<Tensor>& tensors) {
    return common::ErrorReason(OpenTensors(tensors, kConfig).status());
  };
  const std::vector<Tensor> good = OnePair();
  EXPECT_EQ(reason(good), "");
  EXPECT_EQ(reason({}), "CORRUPT_FILE");
  EXPECT_EQ(reason({good[0]}), "CORRUPT_FILE");
  EXPECT_EQ(reason({good[1]}), "CORRUPT_FILE");
  const auto with = [&](size_t half, std::vector<int64_t> shape) {
    std::vector<Tensor> tensors = good;
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    tensors[half].shape = std::move(shape);
    tensors[half].bytes = Bytes(count, 1);
    return tensors;
  };
  EXPECT_EQ(reason(with(0, {2, kIn + 1})), "ADAPTER_MISMATCH");
  EXPECT_EQ(reason(with(0, {2 * kIn})), "ADAPTER_MISMATCH");
  EXPECT_EQ(reason(with(0, {2, kIn, 1})), "ADAPTER_MISMATCH");
  EXPECT_EQ(reason(with(1, {kOut + 1, 2})), "ADAPTER_MISMATCH");
  EXPECT_EQ(reason(with(1, {2, kOut})), "ADAPTER_MISMATCH");
  EXPECT_EQ(reason(with(1, {kOut, 3})), "CORRUPT_FILE");
  EXPECT_EQ(reason(with(0, {0, kIn})), "CORRUPT_FILE");
  EXPECT_EQ(reason(with(0, {int64_t{0}, kIn})), "CORRUPT_FILE");
}

TEST(AdapterTest, ALinearUnderTwoNamesIsCorrupt) {
  std::vector<Tensor> tensors = OnePair();
  for (const Tensor& t : OnePair()) {
    tensors.push_back(t);
    tensors.back().name = absl::StrReplaceAll(
        t.name, {{"model.layers.", "model.language_model.layers."}});
  }
  EXPECT_EQ(common::ErrorReason(OpenTensors(tensors, kConfig).status()),
            "CORRUPT_FILE");
}

TEST(AdapterTest, ValuesMustBeFinite) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          -std::numeric_limits<float>::infinity()}) {
    std::vector<Tensor> tensors = OnePair();
    std::memcpy(&tensors[1].bytes[4], &bad, sizeof(bad));
    const absl::Status status = OpenTensors(tensors, kConfig).status();
    EXPECT_EQ(common::ErrorReason(status), "CORRUPT_FILE");
    EXPECT_NE(status.message().find("element 1"), std::string::npos) << status;
  }
}

// A LoRA GGUF of the q_proj of layer 0, rank 2.
class GgufAdapterTest : public testing::Test {
 protected:
  GgufAdapterTest() {
    writer_.Set("general.architecture", std::string("gemma3"));
    writer_.Set("general.type", std::string("adapter"));
    writer_.Set("adapter.type", std::string("lora"));
  }

  void AddPair(const std::string& name = "blk.0.attn_q.weight") {
    Add(name + ".lora_a", {kIn, 2}, Bytes(2 * kIn, 1));
    Add(name + ".lora_b", {2, kOut}, Bytes(kOut * 2, 2));
  }
  void Add(const std::string& name, const std::vector<int64_t>& dims,
           std::vector<uint8_t> bytes, GgmlType type = GgmlType::kF32) {
    EXPECT_TRUE(writer_.AddTensor(name, type, dims, std::move(bytes)).ok());
  }

  absl::StatusOr<std::unique_ptr<Adapter>> Open(
      const std::vector<LinearSpec>& specs = Specs()) {
    const std::string path = Path("adapter.gguf");
    EXPECT_TRUE(writer_.WriteTo(path).ok());
    return Adapter::OpenGguf(path, "gemma3", specs);
  }
  std::string Reason() { return common::ErrorReason(Open().status()); }

  GgufWriter writer_;
};

TEST_F(GgufAdapterTest, HoldsTheFilesMatricesAndScale) {
  writer_.Set("adapter.lora.alpha", 5.0f);
  AddPair();
  const auto adapter = Open();
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  ASSERT_EQ((*adapter)->pairs().size(), 1);
  const AdapterPair& pair = (*adapter)->pairs()[0];
  EXPECT_EQ(pair.spec.hf_name, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(pair.rank, 2);
  EXPECT_EQ(pair.alpha, 5);
  EXPECT_EQ(pair.scale, 2.5);
  EXPECT_EQ(pair.a, absl::MakeConstSpan(Bytes(2 * kIn, 1)));
  EXPECT_EQ(pair.b, absl::MakeConstSpan(Bytes(kOut * 2, 2)));
  EXPECT_EQ((*adapter)->gguf_alpha(), 5);
}

TEST_F(GgufAdapterTest, AnAlphaOfZeroOrNoneIsAScaleOfOne) {
  AddPair();
  EXPECT_EQ((*Open())->pairs()[0].scale, 1);
  writer_.Set("adapter.lora.alpha", 0.0f);
  EXPECT_EQ((*Open())->pairs()[0].scale, 1);
}

TEST_F(GgufAdapterTest, AlphasThatAreNoScaleAreCorrupt) {
  AddPair();
  for (const float alpha :
       {std::numeric_limits<float>::quiet_NaN(),
        std::numeric_limits<float>::infinity(), -1.0f, 1e30f, 1e-30f}) {
    writer_.Set("adapter.lora.alpha", alpha);
    EXPECT_EQ(Reason(), "CORRUPT_FILE") << alpha;
  }
  writer_.Set("adapter.lora.alpha", std::string("8"));
  EXPECT_EQ(Reason(), "CORRUPT_FILE");
}

TEST_F(GgufAdapterTest, ARankOfOneMayLackItsDimension) {
  Add("blk.0.attn_q.weight.lora_a", {kIn}, Bytes(kIn, 1));
  Add("blk.0.attn_q.weight.lora_b", {1, kOut}, Bytes(kOut, 2));
  const auto adapter = Open();
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_EQ((*adapter)->pairs()[0].rank, 1);
}

TEST_F(GgufAdapterTest, QuantizedMatricesAreDecoded) {
  std::vector<LinearSpec> specs = {Specs()[0]};
  specs[0].in = 32;
  // One block of Q8_0: scale 0.5 in f16, codes 0..31, as A of rank 1.
  std::vector<uint8_t> block = {0x00, 0x38};
  for (uint8_t code = 0; code < 32; ++code) block.push_back(code);
  Add("blk.0.attn_q.weight.lora_a", {32, 1}, block, GgmlType::kQ8_0);
  Add("blk.0.attn_q.weight.lora_b", {1, kOut}, Bytes(kOut, 1));
  const auto adapter = Open(specs);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(At((*adapter)->pairs()[0].a, i), 0.5f * static_cast<float>(i));
  }
}

TEST_F(GgufAdapterTest, OtherFilesAreRefused) {
  AddPair();
  writer_.Set("general.architecture", std::string("gemma4"));
  EXPECT_EQ(Reason(), "ADAPTER_MISMATCH");
  writer_.Set("general.architecture", std::string("gemma3"));
  writer_.Set("general.type", std::string("model"));
  EXPECT_EQ(Reason(), "UNSUPPORTED_ADAPTER");
  writer_.Set("general.type", std::string("adapter"));
  writer_.Set("adapter.type", std::string("alora"));
  EXPECT_EQ(Reason(), "UNSUPPORTED_ADAPTER");
  writer_.Set("adapter.type", uint32_t{1});
  EXPECT_EQ(Reason(), "CORRUPT_FILE");
  writer_.Set("adapter.type", std::string("lora"));
  writer_.Set("adapter.alora.invocation_tokens", std::vector<uint32_t>{1});
  EXPECT_EQ(Reason(), "UNSUPPORTED_ADAPTER");
}

TEST_F(GgufAdapterTest, TensorsMustBeWholePairsOfLinears) {
  EXPECT_EQ(Reason(), "CORRUPT_FILE");  // None.
  Add("blk.0.attn_k.weight.lora_a", {kIn, 2}, Bytes(2 * kIn, 1));
  EXPECT_EQ(Reason(), "CORRUPT_FILE");  // Half a pair.
  Add("blk.0.attn_k.weight.lora_b", {2, kOut}, Bytes(2 * kOut, 1));
  EXPECT_EQ(Reason(), "");
  AddPair("blk.9.attn_q.weight");
  EXPECT_EQ(Reason(), "ADAPTER_MISMATCH");
}

TEST_F(GgufAdapterTest, NormsAreNotSkipped) {
  AddPair();
  Add("blk.0.attn_norm.weight", {kIn}, Bytes(kIn, 1));
  EXPECT_EQ(Reason(), "UNSUPPORTED_ADAPTER");
}

TEST_F(GgufAdapterTest, ExpertsAreRefused) {
  std::vector<LinearSpec> specs = {Specs()[0]};
  specs[0].experts = 2;
  AddPair();
  EXPECT_EQ(common::ErrorReason(Open(specs).status()), "UNSUPPORTED_ADAPTER");
}

}  // namespace
}  // namespace onegrid::model
