#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/common/error_info.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_test_file.h"
#include "services/model/gguf_writer.h"

namespace onegrid::model {
namespace {

using ::testing::HasSubstr;

// One shard; a test changes what it wants to be wrong.
struct Shard {
  uint16_t no;
  uint16_t count = 3;
  int32_t tensors_in_all = 3;
  std::string tensor;  // of four F32 values, all `no`
  std::string name = {};
};

std::string NameOf(int number) {
  return "model-0000" + std::to_string(number) + "-of-00003.gguf";
}

std::string Write(const std::string& file, const Shard& shard) {
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  if (!shard.name.empty()) writer.Set("general.name", shard.name);
  writer.Set("split.no", shard.no);
  writer.Set("split.count", shard.count);
  writer.Set("split.tensors.count", shard.tensors_in_all);
  std::vector<uint8_t> data(16);
  const float value = shard.no;
  for (int i = 0; i < 4; ++i) std::memcpy(&data[4 * i], &value, 4);
  EXPECT_TRUE(
      writer
          .AddTensor(shard.tensor, quant::GgmlType::kF32, {4}, std::move(data))
          .ok());
  const std::string path = WriteTestFile(file, "");
  EXPECT_TRUE(writer.WriteTo(path).ok());
  return path;
}

// Three good shards; returns the path of the first.
std::string WriteGood() {
  Write(NameOf(2), {.no = 1, .tensor = "b"});
  Write(NameOf(3), {.no = 2, .tensor = "c"});
  return Write(NameOf(1), {.no = 0, .tensor = "a", .name = "whole"});
}

void ExpectRefused(const std::string& path, absl::StatusCode code,
                   const std::string& reason, const std::string& message) {
  const auto file = GgufFile::Open(path);
  ASSERT_FALSE(file.ok()) << "expected: " << message;
  EXPECT_EQ(file.status().code(), code) << file.status();
  EXPECT_EQ(common::ErrorReason(file.status()), reason) << file.status();
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(message));
}

TEST(GgufShardsTest, AnyShardOpensTheWholeModel) {
  const std::string first = WriteGood();
  int64_t file_bytes = 0;
  const std::string folder = first.substr(0, first.rfind('/') + 1);
  for (int i = 1; i <= 3; ++i) {
    file_bytes += ReadTestFile(folder + NameOf(i)).size();
  }
  for (int i = 1; i <= 3; ++i) {
    const auto file = GgufFile::Open(folder + NameOf(i));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ((*file)->path(), folder + NameOf(i));
    EXPECT_EQ((*file)->file_bytes(), file_bytes);
    ASSERT_EQ((*file)->tensors().size(), 3u);
    for (int t = 0; t < 3; ++t) {
      const GgufFile::Tensor* tensor = (*file)->Find(std::string(1, 'a' + t));
      ASSERT_EQ(tensor, &(*file)->tensors()[t]);
      float value;
      std::memcpy(&value, tensor->data.data() + 12, sizeof(value));
      EXPECT_EQ(value, t);
      (*file)->DropPages(tensor->data);
    }
    EXPECT_EQ(*(*file)->GetString("general.name"), "whole");
  }
}

// A file that takes over the metadata would itself be opened as a shard.
TEST(GgufShardsTest, TheNumbersOfTheShardsAreNotTheModelsMetadata) {
  const auto file = GgufFile::Open(WriteGood());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->metadata().size(), 2u);
  EXPECT_FALSE((*file)->Has("split.count"));
}

TEST(GgufShardsTest, ReadsShardsOfPythonsWriter) {
  const std::string folder = "services/model/testdata/";
  for (const char* path :
       {"python-00001-of-00003.gguf", "python-00003-of-00003.gguf"}) {
    const auto file = GgufFile::Open(folder + path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(*(*file)->GetString("general.architecture"), "gemma3");
    ASSERT_EQ((*file)->tensors().size(), 5u);
    for (int i = 0; i < 5; ++i) {
      const GgufFile::Tensor& tensor = (*file)->tensors()[i];
      EXPECT_EQ(tensor.name, "t" + std::to_string(i));
      EXPECT_EQ(tensor.rows(), i + 1);
      float value;
      std::memcpy(&value, tensor.data.data() + tensor.data.size() - 4, 4);
      EXPECT_EQ(value, i);
    }
  }
}

TEST(GgufShardsTest, OneOfOneIsAnOrdinaryFile) {
  const auto file = GgufFile::Open(
      Write("any_name.gguf", {.no = 0, .count = 1, .tensor = "a"}));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors().size(), 1u);
}

TEST(GgufShardsTest, AMissingShardIsNamed) {
  const std::string path = WriteGood();
  std::string second = path;
  second.replace(second.find("00001"), 5, "00002");
  ASSERT_EQ(std::remove(second.c_str()), 0);
  ExpectRefused(path, absl::StatusCode::kNotFound, "MISSING_SHARD",
                "shard 2 of 3 is missing: " + second);
}

TEST(GgufShardsTest, AShardOfAnotherSplitIsRefused) {
  const std::string path = WriteGood();
  Write(NameOf(2), {.no = 1, .count = 4, .tensor = "b"});
  ExpectRefused(path, absl::StatusCode::kDataLoss, "SHARD_MISMATCH",
                "expected split.count 3, found 4");
  Write(NameOf(2), {.no = 2, .tensor = "b"});
  ExpectRefused(path, absl::StatusCode::kDataLoss, "SHARD_MISMATCH",
                "is not shard 2 of this split: expected split.no 1, found 2");
  Write(NameOf(2), {.no = 1, .tensors_in_all = 7, .tensor = "b"});
  ExpectRefused(path, absl::StatusCode::kDataLoss, "SHARD_MISMATCH",
                "expected split.tensors.count 3, found 7");
  Write(NameOf(2), {.no = 1, .tensor = "b", .name = "another"});
  ExpectRefused(path, absl::StatusCode::kDataLoss, "SHARD_MISMATCH",
                "is of another model: its metadata key 'general.name'");
  GgufWriter plain;
  plain.Set("general.architecture", std::string("gemma3"));
  ASSERT_TRUE(plain.WriteTo(WriteTestFile(NameOf(2), "")).ok());
  ExpectRefused(path, absl::StatusCode::kDataLoss, "SHARD_MISMATCH",
                "expected split.no 1, found none");
}

TEST(GgufShardsTest, NotAsManyTensorsAsDeclaredIsRefused) {
  std::string path;
  for (int i = 2; i >= 0; --i) {
    path = Write(NameOf(i + 1), {.no = static_cast<uint16_t>(i),
                                 .tensors_in_all = 4,
                                 .tensor = std::string(1, 'a' + i)});
  }
  ExpectRefused(path, absl::StatusCode::kDataLoss, "SHARD_MISMATCH",
                "expected 4 tensors, found 3");
}

TEST(GgufShardsTest, ATensorInTwoShardsIsRefused) {
  const std::string path = WriteGood();
  Write(NameOf(3), {.no = 2, .tensor = "a"});
  ExpectRefused(path, absl::StatusCode::kDataLoss, "DUPLICATE_TENSOR",
                "tensor 'a' is in another shard too");
}

TEST(GgufShardsTest, ARenamedShardSaysWhatItsNameMustBe) {
  WriteGood();
  ExpectRefused(Write("renamed.gguf", {.no = 0, .tensor = "a"}),
                absl::StatusCode::kDataLoss, "SHARD_MISMATCH",
                "its name must end in -00001-of-00003.gguf");
}

TEST(GgufShardsTest, AbsurdNumbersAreRefused) {
  ExpectRefused(Write(NameOf(1), {.no = 3, .tensor = "a"}),
                absl::StatusCode::kDataLoss, "SHARD_MISMATCH",
                "split.no is 3 and split.count is 3");
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  writer.Set("split.count", uint32_t{0xFFFFFFFF});
  writer.Set("split.no", uint16_t{0});
  writer.Set("split.tensors.count", int32_t{1});
  const std::string path = WriteTestFile("many.gguf", "");
  ASSERT_TRUE(writer.WriteTo(path).ok());
  ExpectRefused(path, absl::StatusCode::kDataLoss, "SHARD_MISMATCH",
                "count of at most 65535");
  writer.Set("split.tensors.count", int32_t{-1});
  writer.Set("split.count", uint16_t{2});
  ASSERT_TRUE(writer.WriteTo(path).ok());
  ExpectRefused(path, absl::StatusCode::kInvalidArgument, "CORRUPT_FILE",
                "split.tensors.count");
}

TEST(GgufShardsTest, TruncatedShardsAreRefusedByName) {
  const std::string path = WriteGood();
  std::string second = path;
  second.replace(second.find("00001"), 5, "00002");
  const std::string whole = ReadTestFile(second);
  // The last 16 bytes are padding behind the last tensor.
  for (size_t size = 0; size < whole.size() - 16; size += 3) {
    WriteTestFile(NameOf(2), whole.substr(0, size));
    const auto file = GgufFile::Open(path);
    ASSERT_FALSE(file.ok()) << "truncated to " << size << " bytes";
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(second));
  }
}

}  // namespace
}  // namespace onegrid::model
