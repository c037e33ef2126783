#include "services/common/path_below.h"

#include <filesystem>
#include <string>

#include "gtest/gtest.h"

namespace onegrid::common {
namespace {

namespace fs = std::filesystem;

TEST(PathBelowTest, KeepsToTheFolder) {
  const std::string root =
      fs::canonical(testing::TempDir()).string() + "/path_below";
  fs::remove_all(root);
  fs::create_directories(root + "/in/a");
  fs::create_directories(root + "/inside");
  fs::create_directory_symlink(root + "/inside", root + "/in/out");
  fs::create_directory_symlink("a", root + "/in/link");
  const std::string folder = root + "/in";
  EXPECT_EQ(PathBelow(folder, "a"), folder + "/a");
  EXPECT_EQ(PathBelow(folder, "./a/../a"), folder + "/a");
  EXPECT_EQ(PathBelow(folder, folder + "/a"), folder + "/a");
  EXPECT_EQ(PathBelow(folder, "link/x"), folder + "/a/x");
  EXPECT_EQ(PathBelow(folder + "/.", "missing/x"), folder + "/missing/x");
  for (const std::string& path :
       {std::string(), std::string("."), std::string(".."), std::string("/"),
        std::string("../inside"), std::string("out"), std::string("out/x"),
        std::string("a/../../inside"), root + "/inside",
        std::string("a\0/../../inside", 16)}) {
    EXPECT_EQ(PathBelow(folder, path), std::nullopt) << path;
  }
  EXPECT_EQ(PathBelow(root + "/missing", "a"), std::nullopt);
  EXPECT_EQ(PathBelow("", "a"), std::nullopt);
}

}  // namespace
}  // namespace onegrid::common
