#include "services/common/files.h"

#include <filesystem>

#include "gtest/gtest.h"
#include "services/common/error_info.h"

namespace onegrid::common {
namespace {

TEST(FilesTest, WrittenFileIsReadBackWithItsDigest) {
  const std::string path = testing::TempDir() + "/files_test_a";
  ASSERT_TRUE(WriteFileAtomic(path, "abc").ok());
  ASSERT_TRUE(WriteFileAtomic(path, "abcd").ok());
  EXPECT_EQ(*ReadFile(path), "abcd");
  EXPECT_EQ(*Sha256OfFile(path), Sha256Of("abcd"));
  // FIPS 180-2, appendix B.1.
  EXPECT_EQ(Sha256Of("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(FilesTest, AModelOfOneFileHasTheDigestOfThatFile) {
  const std::string a = Sha256Of("a");
  const std::string b = Sha256Of("b");
  EXPECT_EQ(Sha256OfModel({a}), a);
  EXPECT_EQ(Sha256OfModel({a, b}), Sha256Of(a + "\n" + b + "\n"));
  EXPECT_NE(Sha256OfModel({a, b}), Sha256OfModel({b, a}));
}

TEST(FilesTest, FailedWriteLeavesNothing) {
  const std::string folder = testing::TempDir() + "/files_test_none";
  const absl::Status status = WriteFileAtomic(folder + "/x/y", "abc");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST(FilesTest, FullDiskIsNamed) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP();
  FILE* full = fopen("/dev/full", "w");
  ASSERT_NE(full, nullptr);
  const absl::Status status = WriteAll(fileno(full), "abc", "/dev/full");
  fclose(full);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(status), "DISK_FULL");
}

TEST(FilesTest, MissingFileIsNotFound) {
  EXPECT_EQ(ReadFile("/nonexistent/a").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrorMetadata(ReadFile("/nonexistent/a").status()).at("path"),
            "/nonexistent/a");
}

}  // namespace
}  // namespace onegrid::common
