#include "services/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "services/common/error_info.h"
#include "services/model/gguf_test_file.h"
#include "services/model/safetensors_folder.h"

namespace onegrid::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A file with this header text and `data_bytes` zeros.
std::string FileOf(const std::string& header, size_t data_bytes) {
  std::string bytes;
  for (int shift = 0; shift < 64; shift += 8) {
    bytes += static_cast<char>(static_cast<uint64_t>(header.size()) >> shift);
  }
  return bytes + header + std::string(data_bytes, '\0');
}

void ExpectRefused(const std::string& bytes, const std::string& message,
                   const std::string& reason = "CORRUPT_FILE") {
  const auto file =
      SafetensorsFile::Open(WriteTestFile("test.safetensors", bytes));
  ASSERT_FALSE(file.ok()) << "expected: " << message;
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(message));
  EXPECT_EQ(common::ErrorReason(file.status()), reason);
}

std::string TensorHeader(const std::string& dtype, const std::string& shape,
                         const std::string& offsets) {
  return "{\"t\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}}";
}

TEST(SafetensorsTest, ReaderReturnsWhatTheWriterWrote) {
  SafetensorsWriter writer;
  writer.SetMetadata("format", "pt");
  const std::vector<uint8_t> borrowed = {1, 2, 3, 4, 5, 6, 7, 8};
  ASSERT_TRUE(
      writer.Add("z.f32", "F32", {2, 1}, absl::MakeConstSpan(borrowed)).ok());
  ASSERT_TRUE(
      writer.Add("a.i8", "I8", {3}, std::vector<uint8_t>{9, 8, 7}).ok());
  ASSERT_TRUE(writer.Add("empty", "BF16", {0, 4}, std::vector<uint8_t>{}).ok());
  const std::string path = WriteTestFile("round_trip.safetensors", "");
  ASSERT_TRUE(writer.WriteTo(path).ok());

  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT((*file)->names(), ElementsAre("a.i8", "empty", "z.f32"));
  EXPECT_EQ((*file)->metadata().at("format"), "pt");
  const SafetensorsFile::Tensor* tensor = (*file)->Find("z.f32");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->dtype, "F32");
  EXPECT_THAT(tensor->shape, ElementsAre(2, 1));
  EXPECT_EQ(tensor->data, absl::MakeConstSpan(borrowed));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->data.data()) % 8, 0u);
  EXPECT_EQ((*file)->Find("absent"), nullptr);
}

TEST(SafetensorsTest, EveryTruncationIsRefused) {
  const std::string whole = FileOf(TensorHeader("F32", "[4]", "[0,16]"), 16);
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto file = SafetensorsFile::Open(
        WriteTestFile("truncated.safetensors", whole.substr(0, size)));
    ASSERT_FALSE(file.ok()) << "truncated to " << size << " bytes";
  }
}

TEST(SafetensorsTest, AbsurdHeaderLengthIsRefused) {
  ExpectRefused(std::string(8, '\xff') + "{}", "header declares");
  ExpectRefused(std::string(8, '\x7f') + "{}", "header declares");
}

TEST(SafetensorsTest, BadHeadersAreRefused) {
  ExpectRefused(FileOf("[]", 0), "not a JSON object");
  ExpectRefused(FileOf("{\"t\":", 0), "not a JSON object");
  ExpectRefused(FileOf("{\"t\":1}", 0), "tensor 't'");
  ExpectRefused(FileOf("{\"__metadata__\":{\"a\":1}}", 0), "not a string");
  ExpectRefused(FileOf("{\"t\":" + std::string(100000, '['), 0), "nested");
  const std::string entry =
      "\"t\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[0,0]}";
  ExpectRefused(FileOf("{" + entry + "," + entry + "}", 0), "duplicate name");
}

TEST(SafetensorsTest, ShapesThatDoNotMatchTheOffsetsAreRefused) {
  ExpectRefused(FileOf(TensorHeader("F32", "[4]", "[0,12]"), 16),
                "does not match");
  ExpectRefused(FileOf(TensorHeader("F32", "[4]", "[16,0]"), 16),
                "does not match");
  ExpectRefused(FileOf(TensorHeader("F32", "[-4]", "[0,16]"), 16),
                "expected dtype, shape");
  ExpectRefused(
      FileOf(TensorHeader("F32", "[4294967296,4294967296]", "[0,16]"), 16),
      "does not match");
  ExpectRefused(FileOf(TensorHeader("I8", "[9223372036854775807]",
                                    "[1,9223372036854775808]"),
                       16),
                "expected dtype, shape");
}

TEST(SafetensorsTest, GapsOverlapsAndTrailingBytesAreRefused) {
  const auto two = [](const std::string& a, const std::string& b) {
    return "{\"a\":{\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":" + a +
           "},\"b\":{\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":" + b +
           "}}";
  };
  ExpectRefused(FileOf(two("[0,4]", "[2,6]"), 8), "overlap");
  ExpectRefused(FileOf(two("[0,4]", "[6,10]"), 10), "gap");
  ExpectRefused(FileOf(two("[0,4]", "[4,8]"), 9), "belong to no tensor");
}

TEST(SafetensorsTest, UnknownDtypeNamesTheTensor) {
  ExpectRefused(FileOf(TensorHeader("Q3", "[4]", "[0,16]"), 16),
                "tensor 't' has dtype 'Q3'", "UNSUPPORTED_TENSOR_TYPE");
}

TEST(SafetensorsTest, WriterRefusesBadTensors) {
  SafetensorsWriter writer;
  const std::vector<uint8_t> four(4);
  EXPECT_FALSE(writer.Add("t", "F32", {2}, four).ok());
  EXPECT_FALSE(writer.Add("t", "Q3", {4}, four).ok());
  EXPECT_FALSE(writer.Add("__metadata__", "I8", {4}, four).ok());
  ASSERT_TRUE(writer.Add("t", "I8", {4}, four).ok());
  EXPECT_EQ(common::ErrorReason(writer.Add("t", "I8", {4}, four)),
            "INVALID_TENSOR");
}

SafetensorsWriter ThreeTensors(absl::Status problem = absl::OkStatus()) {
  SafetensorsWriter writer;
  writer.SetMetadata("format", "pt");
  for (const char* name : {"a", "b", "c"}) {
    EXPECT_TRUE(
        writer
            .AddProduced(name, "F32", {2},
                         [=](const SafetensorsWriter::Sink& sink) {
                           return name[0] == 'c' && !problem.ok()
                                      ? problem
                                      : sink(std::vector<uint8_t>(8, name[0]));
                         })
            .ok());
  }
  return writer;
}

std::string EmptyFolder(const std::string& name) {
  const std::string path = WriteTestFile(name, "");
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  return path;
}

std::vector<std::string> FilesIn(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(SafetensorsTest, ShardsComeWithTheIndexThatReadersFollow) {
  const std::string folder = EmptyFolder("shards");
  const auto names = ThreeTensors().WriteShards(folder, "model", 16);
  ASSERT_TRUE(names.ok()) << names.status();
  EXPECT_THAT(*names, ElementsAre("model-00001-of-00002.safetensors",
                                  "model-00002-of-00002.safetensors",
                                  "model.safetensors.index.json"));
  EXPECT_EQ(ReadTestFile(folder + "/model.safetensors.index.json"),
            R"({
  "metadata": {
    "total_size": 24
  },
  "weight_map": {
    "a": "model-00001-of-00002.safetensors",
    "b": "model-00001-of-00002.safetensors",
    "c": "model-00002-of-00002.safetensors"
  }
}
)");
  const auto joined = SafetensorsFolder::Open(folder);
  ASSERT_TRUE(joined.ok()) << joined.status();
  for (const auto& [name, file] : (*joined)->tensors()) {
    EXPECT_EQ((*joined)->Find(name)->data,
              absl::MakeConstSpan(std::vector<uint8_t>(8, name[0])));
    EXPECT_EQ(file->metadata().at("format"), "pt");
  }
  EXPECT_EQ((*joined)->tensors().size(), 3u);
}

TEST(SafetensorsTest, AWriteReplacesTheShardsOfTheOneBefore) {
  const std::string folder = EmptyFolder("again");
  ASSERT_TRUE(ThreeTensors().WriteShards(folder, "model", 8).ok());
  EXPECT_EQ(FilesIn(folder).size(), 4u);
  ASSERT_TRUE(ThreeTensors().WriteShards(folder, "model", 0).ok());
  EXPECT_THAT(FilesIn(folder), ElementsAre("model.safetensors"));
  // transformers would take the whole file for the model, index or not.
  ASSERT_TRUE(ThreeTensors().WriteShards(folder, "model", 16).ok());
  EXPECT_THAT(FilesIn(folder), ElementsAre("model-00001-of-00002.safetensors",
                                           "model-00002-of-00002.safetensors",
                                           "model.safetensors.index.json"));
}

TEST(SafetensorsTest, AnErrorInTheLastShardLeavesNoFile) {
  const std::string folder = EmptyFolder("half");
  const auto names =
      ThreeTensors(absl::AbortedError("stop")).WriteShards(folder, "model", 16);
  EXPECT_EQ(names.status().message(), "stop");
  EXPECT_THAT(FilesIn(folder), ElementsAre());
}

}  // namespace
}  // namespace onegrid::model
