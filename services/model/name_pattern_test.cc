#include "services/model/name_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "services/common/error_info.h"

namespace onegrid::model {
namespace {

bool Matches(const std::string& pattern, const std::string& name) {
  const auto parsed = NamePattern::Parse(pattern);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() && parsed->Matches(name);
}

TEST(NamePatternTest, PlainNameMatchesItselfOnly) {
  EXPECT_TRUE(Matches("token_embd.weight", "token_embd.weight"));
  EXPECT_FALSE(Matches("token_embd.weight", "token_embd.weights"));
  EXPECT_FALSE(Matches("token_embd.weight", "token_embd.weigh"));
  EXPECT_FALSE(Matches("token_embd.weight", "token_embdxweight"));
  EXPECT_FALSE(Matches("a", ""));
}

TEST(NamePatternTest, StarIsAnyRun) {
  EXPECT_TRUE(Matches("*", ""));
  EXPECT_TRUE(Matches("*", "blk.0.attn_q.weight"));
  EXPECT_TRUE(Matches("blk.*.ffn_*.weight", "blk.3.ffn_down.weight"));
  EXPECT_TRUE(Matches("*.weight", "a.weight.weight"));
  EXPECT_TRUE(Matches("a*b*c", "aXbYbZc"));
  EXPECT_TRUE(Matches("a**c", "ac"));
  EXPECT_FALSE(Matches("blk.*.ffn_*.weight", "blk.3.attn_q.weight"));
  EXPECT_FALSE(Matches("a*b*c", "aXcYb"));
  EXPECT_FALSE(Matches("*x", "y"));
}

TEST(NamePatternTest, RangeIsAWholeNumber) {
  EXPECT_TRUE(Matches("blk.{9-17}.w", "blk.9.w"));
  EXPECT_TRUE(Matches("blk.{9-17}.w", "blk.17.w"));
  EXPECT_TRUE(Matches("blk.{9}.w", "blk.9.w"));
  EXPECT_TRUE(Matches("*{3}", "layer3"));
  EXPECT_FALSE(Matches("blk.{9-17}.w", "blk.8.w"));
  EXPECT_FALSE(Matches("blk.{9-17}.w", "blk.18.w"));
  EXPECT_FALSE(Matches("blk.{1}*", "blk.11.w"));
  EXPECT_FALSE(Matches("*{1}", "blk.11"));
  EXPECT_FALSE(Matches("blk.{0-9}.w", "blk..w"));
  EXPECT_FALSE(Matches("{0-9}", "99999999999999999999999"));
}

TEST(NamePatternTest, HostilePatternTakesNoTime) {
  std::string stars;
  for (int i = 0; i < 50; ++i) stars += "*a";
  EXPECT_FALSE(Matches(stars + "b", std::string(2000, 'a')));
}

TEST(NamePatternTest, BadBracesAreInvalidArgument) {
  for (const char* text :
       {"", "a{", "a}", "{}", "{a}", "{3-}", "{-3}", "{5-3}", "{1-2-3}", "{ 1}",
        "{+1}", "{99999999999999999999}"}) {
    const auto pattern = NamePattern::Parse(text);
    ASSERT_FALSE(pattern.ok()) << text;
    EXPECT_EQ(common::ErrorReason(pattern.status()), "INVALID_NAME_PATTERN");
    EXPECT_THAT(std::string(pattern.status().message()),
                testing::HasSubstr(text));
  }
}

}  // namespace
}  // namespace onegrid::model
