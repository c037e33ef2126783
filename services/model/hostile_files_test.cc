// Damaged files must be refused or read, never crash: hundreds of copies of a
// good file, each with some bytes changed at random places (fixed seed), go
// through everything that reads a file. Meant to be run with --config=asan too.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_test_file.h"
#include "services/model/gguf_writer.h"
#include "services/model/hf_tokenizer.h"
#include "services/model/jsonl_dataset.h"
#include "services/model/safetensors.h"
#include "services/model/tensor_ops.h"
#include "services/model/tokenizer.h"

namespace onegrid::model {
namespace {

constexpr int kCopies = 400;

// Changes one to four bytes: to a random value, to an extreme one, or a bit.
// Half of the changes hit the first `head` bytes, where the counts are.
std::string Damaged(const std::string& good, size_t head, std::mt19937& rng) {
  std::string bytes = good;
  const int changes = 1 + static_cast<int>(rng() % 4);
  for (int i = 0; i < changes; ++i) {
    const size_t range = rng() % 2 == 0 ? head : bytes.size();
    char& byte = bytes[rng() % std::min(range, bytes.size())];
    switch (rng() % 3) {
      case 0:
        byte = static_cast<char>(rng());
        break;
      case 1:
        byte = static_cast<char>(rng() % 2 == 0 ? 0xFF : 0x7F);
        break;
      default:
        byte = static_cast<char>(byte ^ (1 << (rng() % 8)));
    }
  }
  if (rng() % 8 == 0) bytes.resize(rng() % bytes.size());
  return bytes;
}

// Reads all that a service would read. Returns whether the file opened.
bool ReadGguf(const std::string& path) {
  const auto file = GgufFile::Open(path);
  if (!file.ok()) return false;
  int64_t sum = 0;
  for (const GgufFile::Tensor& tensor : (*file)->tensors()) {
    for (const uint8_t byte : tensor.data) sum += byte;
    EXPECT_TRUE(DequantizeTensor(tensor).ok()) << tensor.name;
  }
  EXPECT_GE(sum, 0);
  ConfigFromGguf(**file).IgnoreError();
  HfTokenizerFiles(**file).IgnoreError();
  const auto tokenizer = Tokenizer::FromGguf(**file);
  if (tokenizer.ok()) {
    const auto ids = (*tokenizer)
                         ->Encode("abc \n\n<end_of_turn>\xff", true,
                                  /*parse_control=*/true);
    (*tokenizer)->Decode(ids);
  }
  return true;
}

TEST(HostileFilesTest, DamagedGgufFilesNeverCrash) {
  std::mt19937 rng(1);
  const std::string path = WriteTestFile("good.gguf", "");
  ASSERT_TRUE(TinyGemma3().WriteTo(path).ok());
  const std::string good = ReadTestFile(path);
  ASSERT_TRUE(ReadGguf(path));
  int opened = 0;
  for (int i = 0; i < kCopies; ++i) {
    opened += ReadGguf(WriteTestFile("bad.gguf", Damaged(good, 1024, rng)));
  }
  // Both outcomes occur, or the test would show nothing.
  EXPECT_GT(opened, kCopies / 20);
  EXPECT_LT(opened, kCopies * 19 / 20);
}

TEST(HostileFilesTest, DamagedGemma4VocabulariesNeverCrash) {
  std::mt19937 rng(5);
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma4"));
  for (const auto& [key, value] : TinyTokenizerMetadata({"ab", "abc"})) {
    writer.Set(key, value);
  }
  writer.Set("tokenizer.ggml.model", std::string("gemma4"));
  writer.Set("tokenizer.ggml.merges", std::vector<std::string>{"a b", "ab c"});
  const std::string path = WriteTestFile("good.gguf", "");
  ASSERT_TRUE(writer.WriteTo(path).ok());
  const std::string good = ReadTestFile(path);
  ASSERT_TRUE(Tokenizer::FromGguf(**GgufFile::Open(path)).ok());
  int opened = 0;
  for (int i = 0; i < kCopies; ++i) {
    opened += ReadGguf(WriteTestFile("bad.gguf", Damaged(good, 1024, rng)));
  }
  EXPECT_GT(opened, kCopies / 20);
  EXPECT_LT(opened, kCopies);
}

TEST(HostileFilesTest, DamagedShardsNeverCrash) {
  std::mt19937 rng(4);
  std::string paths[2];
  for (uint16_t i = 0; i < 2; ++i) {
    GgufWriter writer;
    writer.Set("general.architecture", std::string("gemma3"));
    writer.Set("split.no", i);
    writer.Set("split.count", uint16_t{2});
    writer.Set("split.tensors.count", int32_t{2});
    ASSERT_TRUE(writer
                    .AddTensor(i == 0 ? "a" : "b", quant::GgmlType::kF32, {4},
                               std::vector<uint8_t>(16))
                    .ok());
    const std::string name =
        i == 0 ? "s-00001-of-00002.gguf" : "s-00002-of-00002.gguf";
    paths[i] = WriteTestFile(name, "");
    ASSERT_TRUE(writer.WriteTo(paths[i]).ok());
  }
  ASSERT_TRUE(ReadGguf(paths[0]));
  const std::string good = ReadTestFile(paths[1]);
  int opened = 0;
  for (int i = 0; i < kCopies; ++i) {
    WriteTestFile("s-00002-of-00002.gguf", Damaged(good, good.size(), rng));
    opened += ReadGguf(paths[i % 2]);
  }
  EXPECT_GT(opened, 0);
  EXPECT_LT(opened, kCopies);
}

TEST(HostileFilesTest, DamagedSafetensorsNeverCrash) {
  std::mt19937 rng(2);
  SafetensorsWriter writer;
  writer.SetMetadata("format", "pt");
  for (const char* name : {"a", "b", "c"}) {
    ASSERT_TRUE(writer.Add(name, "F32", {2, 2}, std::vector<uint8_t>(16)).ok());
  }
  const std::string path = WriteTestFile("good.safetensors", "");
  ASSERT_TRUE(writer.WriteTo(path).ok());
  const std::string good = ReadTestFile(path);
  int opened = 0;
  for (int i = 0; i < kCopies; ++i) {
    const auto file = SafetensorsFile::Open(
        WriteTestFile("bad.safetensors", Damaged(good, good.size(), rng)));
    if (!file.ok()) continue;
    ++opened;
    int64_t sum = 0;
    for (const std::string& name : (*file)->names()) {
      for (const uint8_t byte : (*file)->Find(name)->data) sum += byte;
    }
    EXPECT_GE(sum, 0);
  }
  EXPECT_GT(opened, 0);
  EXPECT_LT(opened, kCopies);
}

TEST(HostileFilesTest, DamagedDatasetsNeverCrash) {
  std::mt19937 rng(3);
  std::string good;
  for (int i = 0; i < 5; ++i) {
    good += "{\"prompt\":\"caf\u00e9 \\u00e9\",\"completion\":\"b\"}\n";
  }
  int read = 0;
  for (int i = 0; i < kCopies; ++i) {
    read +=
        ReadJsonl(WriteTestFile("bad.jsonl", Damaged(good, good.size(), rng)))
            .ok();
  }
  EXPECT_GT(read, 0);
  EXPECT_LT(read, kCopies);
}

}  // namespace
}  // namespace onegrid::model
