// Goal: what is taken means the same in Python and ECMAScript, and the rest is
// refused with its place.
#include "services/inference/grammar/regex_parser.h"

#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"

namespace onegrid::grammar {
namespace {

using ::testing::HasSubstr;

TEST(RegexParserTest, TakesWhatDescribesASetOfTexts) {
  for (const char* pattern :
       {"", "a|", "()*", "^a$|^b$", "[a-z0-9_.-]+", "[^\\]\\\\]", "(?:a)(b)",
        "(?P<n>a)(?<m>b)", "a{3}", "a{3,}", "a{2,4}?", "\\x41\\u00e9\\/\\.",
        "[\\d\\s-]*", ".+", "日本|🙂", "a{0}", "a\\ b"}) {
    EXPECT_TRUE(ParseRegex(pattern).ok()) << pattern;
  }
}

TEST(RegexParserTest, RefusesTheRestWithItsPlace) {
  const std::pair<std::string, std::string> cases[] = {
      {"a(?=b)", "assertion"},
      {"a(?!b)", "assertion"},
      {"(?<=a)b", "assertion"},
      {"(?i)a", "flag"},
      {"(a)\\1", "escape of \"1\""},
      {"\\bword", "escape of \"b\""},
      {"\\p{L}", "escape of \"p\""},
      {"a^b", "anchor"},
      {"(a$)b", "anchor"},
      {"*a", "where a character is expected"},
      {"a{2", "does not end"},
      {"a{,3}", "without a number"},
      {"a{3,2}", "wrong way"},
      {"a**", "count after a count"},
      {"(a", "not closed"},
      {"a)", "closes nothing"},
      {"[a", "not closed"},
      {"[]a]", "begins with"},
      {"[z-a]", "wrong ends"},
      {"[\\s-a]", "wrong ends"},
      {"a\\", "backslash at its end"},
      {"\\xZZ", "hexadecimal"},
      {"\\ud800", "surrogate"},
      {"\xff", "not UTF-8"},
  };
  for (const auto& [pattern, words] : cases) {
    const auto parsed = ParseRegex(pattern);
    ASSERT_FALSE(parsed.ok()) << pattern;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(words));
    EXPECT_EQ(common::ErrorReason(parsed.status()), "STRUCTURE_NOT_SUPPORTED");
  }
}

TEST(RegexParserTest, RefusesAbsurdSizes) {
  for (const std::string& pattern :
       {std::string("a{1,1000000000}"), std::string("a{99999999999999999999}"),
        std::string("((a{100}){100}){100}"), std::string(10'000, 'a'),
        std::string(5000, '('), std::string(5000, '[')}) {
    EXPECT_FALSE(ParseRegex(pattern).ok()) << pattern.substr(0, 20);
  }
}

// Counts of what is empty multiply nothing, and must not be unrolled.
TEST(RegexParserTest, TheEmptyTextRepeatedIsTheEmptyText) {
  GrammarRules rules;
  for (const char* pattern :
       {"(((){2000}){2000}){2000}", "(((){0,2000}){0,2000}){0,2000}a"}) {
    const auto parsed = ParseRegex(pattern);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_TRUE(TextExpression(*parsed, TextPlace::kWhole, rules).ok())
        << pattern;
  }
  // Whatever it is, it comes to an end.
  const auto either = ParseRegex("((((|){0,2000}){0,2000}){0,2000}){0,2000}");
  if (either.ok()) {
    (void)TextExpression(*either, TextPlace::kWhole, rules).ok();
  }
}

TEST(RegexParserTest, WhatHasTooManyStatesIsRefusedWhenItIsWritten) {
  GrammarRules rules;
  for (const char* pattern : {"(a|b)*a(a|b){20}", ".{0,1000}x.{0,1000}"}) {
    const auto parsed = ParseRegex(pattern);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    const auto written = TextExpression(*parsed, TextPlace::kWhole, rules);
    ASSERT_FALSE(written.ok()) << pattern;
    EXPECT_EQ(common::ErrorReason(written.status()), "STRUCTURE_NOT_SUPPORTED");
  }
}

}  // namespace
}  // namespace onegrid::grammar
