// Tests of files that change under a reader.
#include "services/common/file_version.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"

namespace onegrid::common {
namespace {

using testing::HasSubstr;

class FileVersionTest : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }

  const std::string path_ = testing::TempDir() + "/versioned";
};

TEST_F(FileVersionTest, AnUntouchedFileStaysTheSame) {
  Write(path_, "abc");
  const auto version = FileVersionOf(path_);
  ASSERT_TRUE(version.ok());
  EXPECT_EQ(version->bytes, 3);
  std::ifstream(path_).get();
  EXPECT_TRUE(CheckUnchanged(path_, *version).ok());
}

TEST_F(FileVersionTest, AnotherFileInItsPlaceIsAChange) {
  Write(path_, "abc");
  const auto version = FileVersionOf(path_);
  ASSERT_TRUE(version.ok());
  Write(path_ + ".new", "abd");
  ASSERT_EQ(std::rename((path_ + ".new").c_str(), path_.c_str()), 0);
  const absl::Status status = CheckUnchanged(path_, *version);
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ErrorReason(status), "FILE_CHANGED");
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
}

TEST_F(FileVersionTest, WritingToItIsAChange) {
  Write(path_, "abc");
  const auto version = FileVersionOf(path_);
  ASSERT_TRUE(version.ok());
  Write(path_, "abcd");
  EXPECT_FALSE(CheckUnchanged(path_, *version).ok());
  // Of the same size, too, a tick of the file system's clock later.
  const auto longer = FileVersionOf(path_);
  ASSERT_TRUE(longer.ok());
  absl::SleepFor(absl::Milliseconds(30));
  Write(path_, "dcba");
  EXPECT_FALSE(CheckUnchanged(path_, *longer).ok());
}

TEST_F(FileVersionTest, AFileThatIsGoneIsAnError) {
  Write(path_, "abc");
  const auto version = FileVersionOf(path_);
  ASSERT_TRUE(version.ok());
  ASSERT_EQ(::unlink(path_.c_str()), 0);
  EXPECT_EQ(CheckUnchanged(path_, *version).code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace onegrid::common
