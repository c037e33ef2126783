#include "services/model/mapped_file.h"

#include <string>

#include "gtest/gtest.h"
#include "services/common/files.h"

namespace onegrid::model {
namespace {

TEST(MappedFileTest, DroppedPagesAreReadAgain) {
  std::string content(5 * 4096 + 100, 'x');
  for (size_t i = 0; i < content.size(); ++i) {
    content[i] = static_cast<char>(i * i / 7);
  }
  const std::string path = testing::TempDir() + "/mapped";
  ASSERT_TRUE(common::WriteFileAtomic(path, content).ok());
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Span<const uint8_t> bytes = (*file)->bytes();
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
