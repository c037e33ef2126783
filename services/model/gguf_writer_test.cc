#include "services/model/gguf_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "services/common/error_info.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_test_file.h"

namespace onegrid::model {
namespace {

using ::testing::HasSubstr;

std::string TestFolder(const std::string& name) {
  const std::string path = std::string(std::getenv("TEST_TMPDIR")) + "/" + name;
  std::filesystem::create_directories(path);
  return path;
}

size_t FilesIn(const std::string& folder) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    (void)entry;
    ++count;
  }
  return count;
}

GgufWriter SmallWriter(std::vector<uint8_t> data) {
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  const int64_t size = data.size() / 4;
  EXPECT_TRUE(
      writer.AddTensor("t", quant::GgmlType::kF32, {size}, std::move(data))
          .ok());
  return writer;
}

TEST(GgufWriterTest, ReaderReturnsEveryValueTypeAndTensor) {
  const std::vector<std::pair<std::string, GgufValue>> values = {
      {"general.architecture", std::string("gemma3")},
      {"u8", uint8_t{200}},
      {"i8", int8_t{-3}},
      {"u16", uint16_t{60000}},
      {"i16", int16_t{-30000}},
      {"u32", uint32_t{4000000000u}},
      {"i32", int32_t{-5}},
      {"f32", 1.5f},
      {"bool", true},
      {"string", std::string("a\0b", 3)},
      {"u64", uint64_t{1} << 60},
      {"i64", int64_t{-1} << 60},
      {"f64", 0.1},
      {"strings", std::vector<std::string>{"", "x", "\xe2\x96\x81y"}},
      {"bools", std::vector<bool>{true, false, true}},
      {"f32s", std::vector<float>{0.5f, -1.0f}},
      {"empty", std::vector<int32_t>{}},
  };
  GgufWriter writer;
  for (const auto& [key, value] : values) writer.Set(key, value);
  // 5 f32 = 20 bytes, padded to 32; then two Q8_0 blocks, borrowed.
  const std::vector<uint8_t> blocks(68, 0xAB);
  ASSERT_TRUE(writer
                  .AddTensor("first", quant::GgmlType::kF32, {5},
                             std::vector<uint8_t>(20, 1))
                  .ok());
  ASSERT_TRUE(writer
                  .AddTensor("second", quant::GgmlType::kQ8_0, {32, 2},
                             absl::MakeConstSpan(blocks))
                  .ok());
  const std::string path = TestFolder("round_trip") + "/a.gguf";
  ASSERT_TRUE(writer.WriteTo(path).ok());

  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->metadata(),
            (std::map<std::string, GgufValue>(values.begin(), values.end())));
  ASSERT_EQ((*file)->tensors().size(), 2u);
  EXPECT_EQ((*file)->Find("second")->type, quant::GgmlType::kQ8_0);
  EXPECT_EQ((*file)->Find("second")->data, absl::MakeConstSpan(blocks));
  EXPECT_EQ(std::filesystem::file_size(path) % 32, 0u);
}

TEST(GgufWriterTest, SetReplacesAndKeepsPosition) {
  GgufWriter writer;
  writer.Set("general.architecture", std::string("llama"));
  writer.Set("general.architecture", std::string("gemma3"));
  const std::string path = TestFolder("replace") + "/a.gguf";
  ASSERT_TRUE(writer.WriteTo(path).ok());
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*(*file)->GetString("general.architecture"), "gemma3");
}

// The bytes that a reader elsewhere depends on, written out.
TEST(GgufWriterTest, LayoutIsByteExact) {
  GgufWriter writer;
  writer.Set("general.architecture", std::string("g"));
  ASSERT_TRUE(writer
                  .AddTensor("t", quant::GgmlType::kF32, {1},
                             std::vector<uint8_t>{1, 2, 3, 4})
                  .ok());
  const std::string path = TestFolder("layout") + "/a.gguf";
  ASSERT_TRUE(writer.WriteTo(path).ok());
  std::string expected("GGUF\3\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", 24);
  expected += std::string("\x14\0\0\0\0\0\0\0general.architecture", 28);
  expected += std::string("\x08\0\0\0\1\0\0\0\0\0\0\0g", 13);
  expected += std::string("\1\0\0\0\0\0\0\0t\1\0\0\0\1\0\0\0\0\0\0\0", 21);
  expected += std::string(12, '\0');  // type F32, offset 0
  expected.resize((expected.size() + 31) / 32 * 32);
  expected += "\1\2\3\4";
  expected.resize((expected.size() + 31) / 32 * 32);
  EXPECT_EQ(ReadTestFile(path), expected);
}

TEST(GgufWriterTest, BadTensorsAreRefusedByName) {
  GgufWriter writer;
  const std::vector<uint8_t> four(4);
  const auto f32 = quant::GgmlType::kF32;
  const auto message = [](const absl::Status& status) {
    EXPECT_EQ(common::ErrorReason(status), "INVALID_TENSOR");
    return std::string(status.message());
  };
  EXPECT_THAT(message(writer.AddTensor("w", f32, {2}, four)),
              HasSubstr("tensor 'w': expected 8 bytes, found 4"));
  EXPECT_THAT(message(writer.AddTensor("w", f32, {}, four)),
              HasSubstr("dimensions"));
  EXPECT_THAT(message(writer.AddTensor("w", f32, {-1}, four)),
              HasSubstr("bad dimensions"));
  EXPECT_THAT(
      message(writer.AddTensor("w", quant::GgmlType::kQ4_0, {31}, four)),
      HasSubstr("tensor 'w'"));
  EXPECT_THAT(message(writer.AddTensor(std::string(64, 'n'), f32, {1}, four)),
              HasSubstr("63 bytes"));
  ASSERT_TRUE(writer.AddTensor("w", f32, {1}, four).ok());
  EXPECT_THAT(message(writer.AddTensor("w", f32, {1}, four)),
              HasSubstr("added twice"));
}

TEST(GgufWriterTest, ArchitectureIsRequired) {
  GgufWriter writer;
  const std::string folder = TestFolder("no_architecture");
  EXPECT_EQ(common::ErrorReason(writer.WriteTo(folder + "/a.gguf")),
            "INVALID_METADATA");
  EXPECT_EQ(FilesIn(folder), 0u);
}

TEST(GgufWriterTest, MissingFolderIsNotFound) {
  EXPECT_EQ(SmallWriter({1, 2, 3, 4}).WriteTo("/nonexistent/a.gguf").code(),
            absl::StatusCode::kNotFound);
}

// A file size limit stands in for a full disk: the same code path, without the
// privileges that a small file system takes.
TEST(GgufWriterTest, FullDiskLeavesTheOldFileAndNoTemporary) {
  const std::string folder = TestFolder("full");
  const std::string path = folder + "/a.gguf";
  ASSERT_TRUE(SmallWriter({1, 2, 3, 4}).WriteTo(path).ok());
  const std::string before = ReadTestFile(path);

  std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  rlimit limit = old_limit;
  limit.rlim_cur = 64 << 10;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const absl::Status status =
      SmallWriter(std::vector<uint8_t>(1 << 20)).WriteTo(path);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(common::ErrorReason(status), "DISK_FULL");
  EXPECT_THAT(std::string(status.message()), HasSubstr("a.gguf"));
  EXPECT_EQ(ReadTestFile(path), before);
  EXPECT_EQ(FilesIn(folder), 1u);
}

TEST(GgufWriterTest, ProducedTensorsAreMadeWhenTheFileIsWritten) {
  int calls = 0;
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  const std::vector<uint8_t> half(16, 7);
  ASSERT_TRUE(writer
                  .AddProduced("a", quant::GgmlType::kF32, {8},
                               [&](const GgufWriter::Sink& sink) {
                                 ++calls;
                                 const absl::Status first = sink(half);
                                 return first.ok() ? sink(half) : first;
                               })
                  .ok());
  EXPECT_EQ(calls, 0);
  const std::string path = WriteTestFile("produced.gguf", "");
  ASSERT_TRUE(writer.WriteTo(path).ok());
  EXPECT_EQ(calls, 1);
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufFile::Tensor* tensor = (*file)->Find("a");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->data, absl::MakeConstSpan(std::vector<uint8_t>(32, 7)));
}

TEST(GgufWriterTest, AProducerOfTooFewBytesLeavesNoFile) {
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  ASSERT_TRUE(writer
                  .AddProduced("short", quant::GgmlType::kF32, {8},
                               [](const GgufWriter::Sink& sink) {
                                 return sink(std::vector<uint8_t>(31));
                               })
                  .ok());
  const std::string path = WriteTestFile("short.gguf", "as it was");
  const absl::Status status = writer.WriteTo(path);
  EXPECT_EQ(common::ErrorReason(status), "INVALID_TENSOR");
  EXPECT_NE(std::string(status.message()).find("produced 31"),
            std::string::npos);
  EXPECT_EQ(ReadTestFile(path), "as it was");
}

// Three tensors of 32 bytes, the last of which fails with `problem`.
GgufWriter ThreeTensors(absl::Status problem = absl::OkStatus()) {
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  // As in a file that gguf-split made of one shard.
  writer.Set("split.count", uint16_t{1});
  for (const char* name : {"a", "b", "c"}) {
    EXPECT_TRUE(
        writer
            .AddProduced(name, quant::GgmlType::kF32, {8},
                         [=](const GgufWriter::Sink& sink) {
                           return name[0] == 'c' && !problem.ok()
                                      ? problem
                                      : sink(std::vector<uint8_t>(32, name[0]));
                         })
            .ok());
  }
  return writer;
}

TEST(GgufWriterTest, ShardsAreWhatTheReaderJoins) {
  const std::string folder = TestFolder("shards");
  const auto names = ThreeTensors().WriteShards(folder, "m", 64);
  ASSERT_TRUE(names.ok()) << names.status();
  EXPECT_THAT(*names, ::testing::ElementsAre("m-00001-of-00002.gguf",
                                             "m-00002-of-00002.gguf"));
  const auto file = GgufFile::Open(folder + "/" + names->front());
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), 3u);
  for (const GgufFile::Tensor& tensor : (*file)->tensors()) {
    EXPECT_EQ(tensor.data,
              absl::MakeConstSpan(std::vector<uint8_t>(32, tensor.name[0])));
  }
  EXPECT_EQ(*(*file)->GetString("general.architecture"), "gemma3");
}

TEST(GgufWriterTest, AWriteReplacesTheShardsOfTheOneBefore) {
  const std::string folder = TestFolder("again");
  ASSERT_TRUE(ThreeTensors().WriteShards(folder, "m", 32).ok());
  EXPECT_EQ(FilesIn(folder), 3u);
  const auto names = ThreeTensors().WriteShards(folder, "m", 96);
  ASSERT_TRUE(names.ok()) << names.status();
  EXPECT_THAT(*names, ::testing::ElementsAre("m.gguf"));
  EXPECT_EQ(FilesIn(folder), 1u);
}

TEST(GgufWriterTest, AnErrorInTheLastShardLeavesNoFile) {
  const std::string folder = TestFolder("half");
  const auto names =
      ThreeTensors(absl::AbortedError("stop")).WriteShards(folder, "m", 64);
  EXPECT_EQ(names.status().message(), "stop");
  EXPECT_EQ(FilesIn(folder), 0u);
}

}  // namespace
}  // namespace onegrid::model
