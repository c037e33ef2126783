#include "services/common/json_depth.h"

#include <gtest/gtest.h>

#include <string>

namespace onegrid::common {
namespace {

TEST(JsonDepthTest, CountsObjectsAndListsThatAreOpenAtOnce) {
  EXPECT_FALSE(NestsDeeperThan("", 0));
  EXPECT_TRUE(NestsDeeperThan("[]", 0));
  EXPECT_FALSE(NestsDeeperThan(R"({"a": [1], "b": [[2]]})", 3));
  EXPECT_TRUE(NestsDeeperThan(R"({"a": [1], "b": [[2]]})", 2));
  EXPECT_TRUE(NestsDeeperThan(std::string(1000000, '['), kJsonDepthMax));
}

TEST(JsonDepthTest, BracketsInStringsAreText) {
  EXPECT_FALSE(NestsDeeperThan(R"(["[[[\"[[["])", 1));
  EXPECT_TRUE(NestsDeeperThan(R"(["[[[\\", [[]]])", 2));
}

}  // namespace
}  // namespace onegrid::common
