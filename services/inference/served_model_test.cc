#include "services/inference/served_model.h"

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/inference/tiny_model.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_writer.h"

namespace onegrid::inference {
namespace {

using ::testing::HasSubstr;

ServedModelOptions Options(const std::string& path) {
  ServedModelOptions options;
  options.model_path = path;
  options.threads = {1, "--threads"};
  return options;
}

std::string TempPath(const std::string& name) {
  return absl::StrCat(testing::TempDir(), "/served_model_", name, ".gguf");
}

TEST(ServedModelTest, TheBudgetOfKeysAndValuesIsWhatThereMayBe) {
  const std::string path = TempPath("budget");
  ASSERT_TRUE(WriteTinyModel(path).ok());
  ServedModelOptions options = Options(path);
  options.prefix_cache_bytes = 1000;
  auto served = ServedModel::Load(options);
  ASSERT_TRUE(served.ok()) << served.status();
  const int64_t all = (*served)->service().info().kv_bytes();
  EXPECT_GT(all, 1000);
  options.kv_budget_bytes = all / 3;
  served = ServedModel::Load(options);
  ASSERT_TRUE(served.ok()) << served.status();
  EXPECT_EQ((*served)->service().info().kv_bytes(), all / 3);
  options.kv_budget_bytes = 1000;
  const absl::Status status = ServedModel::Load(options).status();
  EXPECT_EQ(common::ErrorReason(status), "INVALID_FLAG");
  EXPECT_THAT(std::string(status.message()), HasSubstr("--kv_budget"));
}

TEST(ServedModelTest, AStepHasATokenAtLeast) {
  const std::string path = TempPath("step");
  ASSERT_TRUE(WriteTinyModel(path).ok());
  ServedModelOptions options = Options(path);
  options.max_shared_step_tokens = 0;
  const absl::Status status = ServedModel::Load(options).status();
  EXPECT_EQ(common::ErrorReason(status), "INVALID_FLAG");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("--max_shared_step_tokens is \"0\""));
}

TEST(ServedModelTest, OnlyTheNamedArtifactIsServed) {
  const std::string path = TempPath("digest");
  ASSERT_TRUE(WriteTinyModel(path).ok());
  ServedModelOptions options = Options(path);
  options.artifact_sha256 = *common::Sha256OfFile(path);
  EXPECT_TRUE(ServedModel::Load(options).ok());
  options.artifact_sha256.back() ^= 1;
  const absl::Status status = ServedModel::Load(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(common::ErrorReason(status), "DIGEST_MISMATCH");
}

TEST(ServedModelTest, TheDigestOfAModelInShardsIsThatOfAllOfThem) {
  const std::string whole = TempPath("whole");
  ASSERT_TRUE(WriteTinyModel(whole).ok());
  const auto file = model::GgufFile::Open(whole);
  ASSERT_TRUE(file.ok()) << file.status();
  model::GgufWriter writer;
  for (const auto& [key, value] : (*file)->metadata()) writer.Set(key, value);
  for (const auto& tensor : (*file)->tensors()) {
    ASSERT_TRUE(
        writer.AddTensor(tensor.name, tensor.type, tensor.dims, tensor.data)
            .ok());
  }
  const std::string folder = testing::TempDir();
  const auto names = writer.WriteShards(folder, "served_model_shards",
                                        (*file)->file_bytes() / 3);
  ASSERT_TRUE(names.ok()) << names.status();
  ASSERT_GT(names->size(), 1u);
  std::vector<std::string> digests;
  for (const std::string& name : *names) {
    digests.push_back(*common::Sha256OfFile(absl::StrCat(folder, "/", name)));
  }
  ServedModelOptions options =
      Options(absl::StrCat(folder, "/", names->back()));
  options.artifact_sha256 = common::Sha256OfModel(digests);
  const auto served = ServedModel::Load(options);
  ASSERT_TRUE(served.ok()) << served.status();
  EXPECT_EQ((*served)->service().info().artifact_sha256(),
            options.artifact_sha256);
  options.artifact_sha256 = digests[0];
  EXPECT_EQ(common::ErrorReason(ServedModel::Load(options).status()),
            "DIGEST_MISMATCH");
}

TEST(ServedModelTest, TheModelsNameIsTheOptionsOrTheFiles) {
  const std::string path = TempPath("name");
  ASSERT_TRUE(WriteTinyModel(path).ok());
  ServedModelOptions options = Options(path);
  EXPECT_EQ((*ServedModel::Load(options))->name(), "served_model_name");
  options.model_name = "asked";
  EXPECT_EQ((*ServedModel::Load(options))->name(), "asked");

  for (const auto& [general_name, expected] :
       std::vector<std::pair<std::string, std::string>>{{"Gemma 3", "Gemma 3"},
                                                        {"", "b"}}) {
    model::GgufWriter writer;
    writer.Set("general.architecture", std::string("gemma3"));
    writer.Set("general.name", general_name);
    const std::string named = TempPath("general_name");
    ASSERT_TRUE(writer.WriteTo(named).ok());
    const auto file = model::GgufFile::Open(named);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(ModelName(**file, "/a/b.gguf"), expected);
  }
}

TEST(ServedModelTest, ChatFormatIsTheTemplatesUnlessAFlagNamesOne) {
  const auto chat_of = [](const std::string& jinja, const std::string& flag) {
    model::GgufWriter writer;
    writer.Set("general.architecture", std::string("gemma3"));
    if (!jinja.empty()) writer.Set("tokenizer.chat_template", jinja);
    const std::string path = TempPath("chat");
    EXPECT_TRUE(writer.WriteTo(path).ok());
    v1::ServerInfo info;
    const absl::Status status = DescribeChat(**model::GgufFile::Open(path),
                                             model::GemmaConfig(), flag, &info);
    return status.ok() ? info.chat_format() : common::ErrorReason(status);
  };
  EXPECT_EQ(chat_of("", "auto"), "gemma3");
  EXPECT_EQ(chat_of("{{ messages }}", "auto"), "");
  EXPECT_EQ(chat_of("{{ messages }}", "gemma4"), "gemma4");
  EXPECT_EQ(chat_of("", "gemma4-first"), "gemma4-first");
  EXPECT_EQ(chat_of("", "chatml"), "INVALID_FLAG");
}

TEST(ServedModelTest, MissingTruncatedAndForeignFilesAreRefused) {
  EXPECT_FALSE(ServedModel::Load(Options("")).ok());
  EXPECT_EQ(ServedModel::Load(Options(TempPath("missing"))).status().code(),
            absl::StatusCode::kNotFound);
  const std::string path = TempPath("truncated");
  ASSERT_TRUE(WriteTinyModel(path).ok());
  const auto bytes = std::filesystem::file_size(path);
  for (const auto size : {bytes - 1, bytes / 2, uintmax_t{100}, uintmax_t{0}}) {
    std::filesystem::resize_file(path, size);
    EXPECT_FALSE(ServedModel::Load(Options(path)).ok()) << size;
  }
  ASSERT_TRUE(common::WriteFileAtomic(path, std::string(4096, 'x')).ok());
  EXPECT_FALSE(ServedModel::Load(Options(path)).ok());
}

TEST(ServedModelTest, LinearOfAnotherTypeIsNamed) {
  const std::string path = TempPath("float_linear");
  TinyModelOptions tiny;
  tiny.types["blk.1.ffn_up.weight"] = quant::GgmlType::kF32;
  ASSERT_TRUE(WriteTinyModel(path, tiny).ok());
  const absl::Status status = ServedModel::Load(Options(path)).status();
  EXPECT_EQ(common::ErrorReason(status), "UNSUPPORTED_TENSOR_TYPE");
  EXPECT_THAT(std::string(status.message()), HasSubstr("blk.1.ffn_up.weight"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("F32"));
}

TEST(ServedModelTest, EmbeddingOfAnotherTypeIsNamed) {
  const std::string path = TempPath("float_embedding");
  TinyModelOptions tiny;
  tiny.types["token_embd.weight"] = quant::GgmlType::kF32;
  ASSERT_TRUE(WriteTinyModel(path, tiny).ok());
  const absl::Status status = ServedModel::Load(Options(path)).status();
  EXPECT_EQ(common::ErrorReason(status), "UNSUPPORTED_TENSOR_TYPE");
  EXPECT_THAT(std::string(status.message()), HasSubstr("token_embd.weight"));
}

TEST(ServedModelTest, InfoSaysWhichKernelRunsWhichGrid) {
  const auto info = [](const TinyModelOptions& tiny,
                       const std::string& activations) {
    const std::string path = TempPath("info");
    EXPECT_TRUE(WriteTinyModel(path, tiny).ok());
    ServedModelOptions options = Options(path);
    options.activations = activations;
    options.isa = "reference";
    const auto served = ServedModel::Load(options);
    EXPECT_TRUE(served.ok()) << served.status();
    return (*served)->service().info();
  };
  EXPECT_EQ(info({}, "int8").weight_format(),
            "linears: 28 int4_g32 (Q4_0); embedding and head: int8_g32 (Q8_0); "
            "norms: F32");
  EXPECT_EQ(info({}, "int8").kernel_path(),
            "decode and prefill in groups of 32: int4_g32: int8 x int4, head: "
            "int8 x int8 after a sketch in int4 where few logits are wanted; "
            "reference");
  EXPECT_EQ(info(MixedTinyModel(), "int8").weight_format(),
            "linears: 14 int4_g32 (Q4_0), 8 int8_g32 (Q8_0), 6 int2_g64 "
            "(Q2_0); embedding and head: int4_g32 (Q4_0); norms: F32");
  TinyModelOptions bf16;
  bf16.types["blk.1.ffn_up.weight"] = quant::GgmlType::kBF16;
  EXPECT_EQ(info(bf16, "int8").weight_format(),
            "linears: 27 int4_g32 (Q4_0), 1 bf16 (BF16); embedding and head: "
            "int8_g32 (Q8_0); norms: F32");
  EXPECT_EQ(info(bf16, "int8").kernel_path(),
            "decode and prefill in groups of 32: int4_g32: int8 x int4, bf16: "
            "f32 x bf16, head: int8 x int8 after a sketch in int4 where few "
            "logits are wanted; reference");
  TinyModelOptions own_head;
  own_head.own_head = true;
  own_head.types["output.weight"] = quant::GgmlType::kQ4_0;
  EXPECT_EQ(info(own_head, "int8").weight_format(),
            "linears: 28 int4_g32 (Q4_0); embedding: int8_g32 (Q8_0); head: "
            "int4_g32 (Q4_0); norms: F32");
  EXPECT_EQ(info(own_head, "int8").kernel_path(),
            "decode and prefill in groups of 32: int4_g32: int8 x int4, head: "
            "int8 x int4; reference");
  EXPECT_EQ(info(MixedTinyModel(), "f32").kernel_path(),
            "decode and prefill in groups of 32: int4_g32: f32 x dequantized "
            "int4, int8_g32: f32 x dequantized int8, int2_g64: f32 x "
            "dequantized int2, head: f32 x dequantized int4; reference");
}

TEST(ServedModelTest, UnknownPrecisionAndInstructionSetAreRefused) {
  std::vector<std::string> degraded;
  ServedModelOptions options = Options("any");
  options.activations = "int4";
  EXPECT_THAT(
      std::string(ChooseNumerics(options, &degraded).status().message()),
      HasSubstr("--activations"));
  options = Options("any");
  options.activations = "bf16";  // of the cache only
  EXPECT_FALSE(ChooseNumerics(options, &degraded).ok());
  options = Options("any");
  options.kv_cache = "f16";
  EXPECT_THAT(
      std::string(ChooseNumerics(options, &degraded).status().message()),
      HasSubstr("expected int8, bf16 or f32"));
  options = Options("any");
  options.isa = "neon";
  EXPECT_FALSE(ChooseNumerics(options, &degraded).ok());
  options = Options("any");
  options.isa = "reference";
  const auto numerics = ChooseNumerics(options, &degraded);
  ASSERT_TRUE(numerics.ok());
  EXPECT_EQ(numerics->isa, kernels::Isa::kReference);
  EXPECT_TRUE(degraded.empty());
}

TEST(ServedModelTest, MissingInstructionSetIsAnErrorUnlessAllowed) {
  if (kernels::IsaSupported(kernels::Isa::kAmx)) {
    GTEST_SKIP() << "this processor has every instruction set";
  }
  std::vector<std::string> degraded;
  ServedModelOptions options = Options("any");
  options.isa = "amx_int8";
  EXPECT_EQ(common::ErrorReason(ChooseNumerics(options, &degraded).status()),
            "ISA_NOT_SUPPORTED");
  options.allow_degraded = true;
  EXPECT_TRUE(ChooseNumerics(options, &degraded).ok());
  EXPECT_EQ(degraded.size(), 1u);
}

}  // namespace
}  // namespace onegrid::inference
