#include "services/inference/text_stream.h"

#include <string>

#include "gtest/gtest.h"

namespace onegrid::inference {
namespace {

TEST(TextStreamTest, WithoutStopsTextPassesAtOnce) {
  TextStream stream({});
  EXPECT_EQ(stream.Append("Hello"), "Hello");
  EXPECT_EQ(stream.Append(" world"), " world");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStreamTest, StopStringAcrossTokensIsNeverShown) {
  TextStream stream({"</end>"});
  EXPECT_EQ(stream.Append("text <"), "text ");
  EXPECT_EQ(stream.Append("/e"), "");
  EXPECT_EQ(stream.Append("nd> more"), "");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.stop_string(), "</end>");
  EXPECT_EQ(stream.Append("after"), "");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStreamTest, FalseStartIsReleased) {
  TextStream stream({"abcd"});
  EXPECT_EQ(stream.Append("xxabc"), "xx");
  EXPECT_EQ(stream.Append("abc"), "abc");
  EXPECT_EQ(stream.Finish(), "abc");
  EXPECT_FALSE(stream.stopped());
}

TEST(TextStreamTest, RepeatedPrefixKeepsTheLongestPossibleStart) {
  TextStream stream({"aab"});
  EXPECT_EQ(stream.Append("aaa"), "a");
  EXPECT_EQ(stream.Append("b"), "");
  EXPECT_TRUE(stream.stopped());
}

TEST(TextStreamTest, EarliestStopWins) {
  TextStream stream({"later", "ear"});
  EXPECT_EQ(stream.Append("an ear is later"), "an ");
  EXPECT_EQ(stream.stop_string(), "ear");
}

TEST(TextStreamTest, CharactersCutByTokensArriveWhole) {
  TextStream stream({});
  EXPECT_EQ(stream.Append("a\xF0\x9F"), "a");
  EXPECT_EQ(stream.Append("\x98"), "");
  EXPECT_EQ(stream.Append("\x80!"), "\xF0\x9F\x98\x80!");
  EXPECT_EQ(stream.Append("\xE2\x82"), "");
  EXPECT_EQ(stream.Finish(), "\xEF\xBF\xBD");
}

TEST(TextStreamTest, EveryCutOfTheSameBytesGivesTheSameText) {
  const std::string bytes = "na\xC3\xAFve \xE2\x82\xAC STOP tail";
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    TextStream stream({"STOP"});
    std::string text = stream.Append(bytes.substr(0, cut));
    text += stream.Append(bytes.substr(cut));
    text += stream.Finish();
    EXPECT_EQ(text, "na\xC3\xAFve \xE2\x82\xAC ") << cut;
  }
}

}  // namespace
}  // namespace onegrid::inference
