#include "services/inference/utf8.h"

#include "gtest/gtest.h"

namespace onegrid::inference {
namespace {

TEST(Utf8Test, TailIsOnlyWhatCanStillBecomeACharacter) {
  EXPECT_EQ(IncompleteTailBytes(""), 0u);
  EXPECT_EQ(IncompleteTailBytes("abc"), 0u);
  EXPECT_EQ(IncompleteTailBytes("a\xF0"), 1u);
  EXPECT_EQ(IncompleteTailBytes("a\xF0\x9F"), 2u);
  EXPECT_EQ(IncompleteTailBytes("a\xF0\x9F\x98"), 3u);
  EXPECT_EQ(IncompleteTailBytes("a\xF0\x9F\x98\x80"), 0u);
  EXPECT_EQ(IncompleteTailBytes("a\x80"), 0u);
  EXPECT_EQ(IncompleteTailBytes("\xE0\x80"), 0u);
  EXPECT_EQ(IncompleteTailBytes("\xFF"), 0u);
}

TEST(Utf8Test, WellFormedTextOfEveryLengthStays) {
  const char* text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  EXPECT_EQ(ReplaceInvalidUtf8(text), text);
}

TEST(Utf8Test, OverlongFormsSurrogatesAndHugeValuesAreReplaced) {
  for (const char* text :
       {"\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80"}) {
    EXPECT_NE(ReplaceInvalidUtf8(text), text);
  }
}

TEST(Utf8Test, ReplacesEachMaximalIllFormedPartOnce) {
  EXPECT_EQ(ReplaceInvalidUtf8("a\xE2\x82"
                               "b"),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(ReplaceInvalidUtf8("\xFF\xFE"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xE2\x82\xAC"), "\xE2\x82\xAC");
}

}  // namespace
}  // namespace onegrid::inference
