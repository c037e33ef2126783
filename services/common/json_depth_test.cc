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

TEST(JsonDepthTest, MembersAreCountedInEachObject) {
  EXPECT_FALSE(HasWiderObject("", 1));
  EXPECT_TRUE(HasWiderObject(R"({"a": 1, "b": 2})", 1));
  EXPECT_FALSE(HasWiderObject(R"({"a": ",,", "b": [1, 2, 3, 4]})", 2));
  EXPECT_FALSE(HasWiderObject(R"([{"a": 1}, {"a": 1}, {"a": 1}])", 1));
  EXPECT_TRUE(HasWiderObject(R"([{"a": {"b": 1}, "c": [], "d": 1}])", 2));
  EXPECT_TRUE(HasWiderObject("]]}{,,", 2));
}

TEST(JsonDepthTest, BracketsInStringsAreText) {
  EXPECT_FALSE(NestsDeeperThan(R"(["[[[\"[[["])", 1));
  EXPECT_TRUE(NestsDeeperThan(R"(["[[[\\", [[]]])", 2));
}

}  // namespace
}  // namespace onegrid::common
