#include "services/model/mapped_file.h"

#include <sys/stat.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::model {
namespace {

// Kilobytes of the mapping of a file that this process holds. By its name: the
// folder may be a link.
int HeldKilobytes(const std::string& path) {
  const std::string name = path.substr(path.rfind('/'));
  std::ifstream maps("/proc/self/smaps");
  bool found = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find(name) != std::string::npos) found = true;
    int kilobytes = 0;
    if (found && std::sscanf(line.c_str(), "Rss: %d", &kilobytes) == 1) {
      return kilobytes;
    }
  }
  return -1;
}

TEST(MappedFileTest, AFifoIsRefusedAtOnce) {
  const std::string path = testing::TempDir() + "/fifo";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  const auto status = MappedFile::Open(path).status();
  EXPECT_EQ(common::ErrorReason(status), "NOT_A_REGULAR_FILE") << status;
}

TEST(MappedFileTest, DroppedPagesAreReadAgain) {
  std::string content(5 * 4096 + 100, 'x');
  for (size_t i = 0; i < content.size(); ++i) {
    content[i] = static_cast<char>(i * i / 7);
  }
  const std::string path = testing::TempDir() + "/dropped_pages_test";
  ASSERT_TRUE(common::WriteFileAtomic(path, content).ok());
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Span<const uint8_t> bytes = (*file)->bytes();
  EXPECT_EQ(std::string(bytes.begin(), bytes.end()), content);
  EXPECT_EQ(HeldKilobytes(path), 24);
  // The page that the file ends in is not whole.
  (*file)->DropPages(bytes);
  EXPECT_LE(HeldKilobytes(path), 4);
  // Whole, parts of pages, nothing.
  for (const auto& [begin, size] :
       {std::pair<size_t, size_t>{0, content.size()},
        {1, 4094},
        {100, 3 * 4096},
        {4096, 4096},
        {7, 0},
        {content.size(), 0}}) {
    (*file)->DropPages(bytes.subspan(begin, size));
    EXPECT_EQ(std::string(bytes.begin(), bytes.end()), content) << begin;
  }
}

}  // namespace
}  // namespace onegrid::model
