#include "services/model/gguf_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "services/common/error_info.h"
#include "services/model/gguf_test_file.h"

namespace onegrid::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Builds GGUF files byte by byte, so that a test can break any part.
class Bytes {
 public:
  template <typename T>
  Bytes& Put(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Bytes& Text(const std::string& text) {
    Put<uint64_t>(text.size());
    out_ += text;
    return *this;
  }
  Bytes& Raw(const std::string& bytes) {
    out_ += bytes;
    return *this;
  }
  Bytes& Header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
    return Raw("GGUF").Put(version).Put(tensors).Put(keys);
  }
  Bytes& Key(const std::string& key, uint32_t value) {
    return Text(key).Put<uint32_t>(4).Put(value);
  }
  Bytes& Tensor(const std::string& name, const std::vector<uint64_t>& dims,
                uint32_t type, uint64_t offset) {
    Text(name).Put<uint32_t>(dims.size());
    for (const uint64_t size : dims) Put(size);
    return Put(type).Put(offset);
  }
  Bytes& Pad(size_t alignment = 32) {
    out_.resize((out_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  const std::string& str() const { return out_; }

 private:
  std::string out_;
};

absl::StatusOr<std::unique_ptr<GgufFile>> OpenBytes(const std::string& bytes) {
  return GgufFile::Open(WriteTestFile("test.gguf", bytes));
}

void ExpectRefused(const Bytes& bytes, const std::string& message,
                   const std::string& reason = "CORRUPT_FILE") {
  const auto file = OpenBytes(bytes.str());
  ASSERT_FALSE(file.ok()) << "expected: " << message;
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(message));
  EXPECT_THAT(std::string(file.status().message()), HasSubstr("test.gguf"));
  EXPECT_EQ(common::ErrorReason(file.status()), reason);
}

// Two keys, an F32 matrix of 3 x 2 and an F32 vector of 4.
Bytes SmallFile() {
  Bytes bytes;
  bytes.Header(2, 2).Key("a", 7).Text("b").Put<uint32_t>(8).Text("text");
  bytes.Tensor("m", {3, 2}, 0, 0).Tensor("v", {4}, 0, 32).Pad();
  for (int i = 0; i < 6; ++i) bytes.Put<float>(i);
  bytes.Pad();
  for (int i = 0; i < 4; ++i) bytes.Put<float>(10 + i);
  return bytes;
}

TEST(GgufReaderTest, ReadsMetadataAndTensors) {
  const auto file = OpenBytes(SmallFile().str());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*(*file)->GetU32("a"), 7u);
  EXPECT_EQ(*(*file)->GetString("b"), "text");
  ASSERT_EQ((*file)->tensors().size(), 2u);
  const GgufFile::Tensor* matrix = (*file)->Find("m");
  ASSERT_NE(matrix, nullptr);
  EXPECT_THAT(matrix->dims, ElementsAre(3, 2));
  EXPECT_EQ(matrix->cols(), 3);
  EXPECT_EQ(matrix->rows(), 2);
  float value;
  std::memcpy(&value, (*file)->Find("v")->data.data() + 4, 4);
  EXPECT_EQ(value, 11.0f);
  EXPECT_EQ((*file)->Find("absent"), nullptr);
}

TEST(GgufReaderTest, EveryTruncationIsRefused) {
  const std::string whole = SmallFile().str();
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto file = OpenBytes(whole.substr(0, size));
    ASSERT_FALSE(file.ok()) << "truncated to " << size << " bytes";
    EXPECT_EQ(common::ErrorReason(file.status()), "CORRUPT_FILE") << size;
  }
}

TEST(GgufReaderTest, TellsWhenAnotherFileHasTakenThePlace) {
  const std::string bytes = SmallFile().str();
  const auto file = OpenBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->CheckUnchanged().ok());
  const std::string other = WriteTestFile("other.gguf", bytes);
  ASSERT_EQ(std::rename(other.c_str(), (*file)->path().c_str()), 0);
  const absl::Status status = (*file)->CheckUnchanged();
  EXPECT_EQ(common::ErrorReason(status), "FILE_CHANGED");
  EXPECT_THAT(std::string(status.message()), HasSubstr("test.gguf"));
}

TEST(GgufReaderTest, MissingFileIsNotFoundAndFolderIsRefused) {
  EXPECT_EQ(GgufFile::Open("/nonexistent/x.gguf").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(GgufFile::Open("/").ok());
}

TEST(GgufReaderTest, WrongMagicAndVersionSayWhatWasFound) {
  ExpectRefused(Bytes().Raw("PK\3\4 a zip file, say"), "found 'PK");
  ExpectRefused(Bytes().Header(0, 0, 2), "found version 2",
                "UNSUPPORTED_FORMAT_VERSION");
  ExpectRefused(Bytes().Header(0, 0, 0x03000000), "big-endian",
                "UNSUPPORTED_FORMAT_VERSION");
}

TEST(GgufReaderTest, AbsurdCountsAreRefusedWithoutAllocating) {
  constexpr uint64_t kHuge = uint64_t{1} << 62;
  ExpectRefused(Bytes().Header(kHuge, 0), "tensors, more than fit");
  ExpectRefused(Bytes().Header(0, kHuge), "metadata entries, more than fit");
  ExpectRefused(Bytes().Header(0, 1).Put<uint64_t>(kHuge).Raw("0123456789"),
                "truncated");
  ExpectRefused(Bytes()
                    .Header(0, 1)
                    .Text("k")
                    .Put<uint32_t>(9)
                    .Put<uint32_t>(8)
                    .Put<uint64_t>(kHuge),
                "array elements");
  ExpectRefused(Bytes().Header(0, 1).Text("k").Put<uint32_t>(8).Put<uint64_t>(
                    ~uint64_t{0}),
                "truncated");
}

TEST(GgufReaderTest, UnknownAndNestedValueTypesAreRefused) {
  ExpectRefused(Bytes().Header(0, 1).Text("k").Put<uint32_t>(13).Raw("1234"),
                "expected a value type 0..12, found 13");
  ExpectRefused(Bytes()
                    .Header(0, 1)
                    .Text("k")
                    .Put<uint32_t>(9)
                    .Put<uint32_t>(9)
                    .Put<uint64_t>(0),
                "arrays of arrays");
  ExpectRefused(Bytes().Header(0, 1).Text("k").Put<uint32_t>(7).Raw("\2"),
                "expected a bool");
}

TEST(GgufReaderTest, DuplicateKeysAndTensorNamesAreRefused) {
  ExpectRefused(Bytes().Header(0, 2).Key("k", 1).Key("k", 2), "duplicate key");
  ExpectRefused(Bytes()
                    .Header(2, 0)
                    .Tensor("t", {1}, 0, 0)
                    .Tensor("t", {1}, 0, 32)
                    .Pad()
                    .Raw(std::string(64, '\0')),
                "duplicate tensor name");
}

TEST(GgufReaderTest, BadAlignmentIsRefused) {
  ExpectRefused(Bytes().Header(0, 1).Key("general.alignment", 24),
                "expected a power of two, found 24");
  ExpectRefused(Bytes().Header(0, 1).Key("general.alignment", 0),
                "expected a power of two, found 0");
}

TEST(GgufReaderTest, BadTensorShapesAreRefused) {
  ExpectRefused(
      Bytes().Header(1, 0).Tensor("t", {}, 0, 0).Raw(std::string(64, '\0')),
      "1 to 4 dimensions, found 0");
  ExpectRefused(Bytes().Header(1, 0).Tensor("t", {1, 1, 1, 1, 1}, 0, 0),
                "1 to 4 dimensions, found 5");
  ExpectRefused(Bytes().Header(1, 0).Tensor("t", {4, 0}, 0, 0),
                "positive dimensions");
  ExpectRefused(
      Bytes().Header(1, 0).Tensor("t", {1ull << 33, 1ull << 33}, 0, 0),
      "positive dimensions");
  ExpectRefused(Bytes().Header(1, 0).Tensor("t", {~0ull}, 0, 0),
                "positive dimensions");
  ExpectRefused(Bytes().Header(1, 0).Tensor("t", {33}, 2, 0).Pad(),
                "not a whole number of Q4_0 blocks");
  // 2^62 f32 elements: 2^64 bytes.
  ExpectRefused(Bytes().Header(1, 0).Tensor("t", {1ull << 62}, 0, 0).Pad(),
                "overflows");
  ExpectRefused(
      Bytes().Header(1, 0).Tensor(std::string(64, 'n'), {1}, 0, 0).Pad(),
      "at most 63 bytes");
}

TEST(GgufReaderTest, UnsupportedTensorTypeNamesTheTensor) {
  ExpectRefused(Bytes().Header(1, 0).Tensor("odd", {64}, 40, 0),
                "tensor 'odd' has ggml type 40", "UNSUPPORTED_TENSOR_TYPE");
}

TEST(GgufReaderTest, OffsetsOutsideOrOverflowingAreRefused) {
  for (const uint64_t offset :
       {uint64_t{32}, uint64_t{1}, ~uint64_t{31}, ~uint64_t{0}}) {
    ExpectRefused(Bytes()
                      .Header(1, 0)
                      .Tensor("t", {4}, 0, offset)
                      .Pad()
                      .Raw(std::string(64, '\0')),
                  "expected data offset 0");
  }
  ExpectRefused(Bytes()
                    .Header(1, 0)
                    .Tensor("t", {1 << 20}, 0, 0)
                    .Pad()
                    .Raw(std::string(64, '\0')),
                "needs 4194304 bytes");
}

TEST(GgufReaderTest, TypedAccessNamesKeyExpectedAndFound) {
  const auto file = OpenBytes(SmallFile().str());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(std::string((*file)->GetString("a").status().message()),
              HasSubstr("metadata key 'a': expected string, found u32"));
  EXPECT_THAT(std::string((*file)->GetU32("z").status().message()),
              HasSubstr("metadata key 'z' is missing"));
  EXPECT_EQ((*file)->GetU32("z").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace onegrid::model
