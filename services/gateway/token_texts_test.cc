#include "services/gateway/token_texts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace onegrid::gateway {
namespace {

using ::testing::ElementsAre;

TokenTexts Texts(const std::vector<std::string>& texts) {
  v1::Vocabulary vocabulary;
  for (const std::string& text : texts) vocabulary.add_texts(text);
  vocabulary.add_control_ids(0);
  vocabulary.add_control_ids(99);  // none such
  return TokenTexts(std::move(vocabulary));
}

TEST(TokenTextsTest, IdsOutOfRangeHaveNoText) {
  const TokenTexts texts = Texts({"<bos>", "a"});
  EXPECT_EQ(texts.Of(1).bytes, "a");
  EXPECT_FALSE(texts.Of(1).control);
  EXPECT_TRUE(texts.Of(0).control);
  for (const int32_t id : {-1, 2, 99, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(texts.Of(id).bytes, "");
    EXPECT_FALSE(texts.Of(id).control);
  }
}

TEST(TokenTextsTest, DecodingLeavesControlTokensOut) {
  const TokenTexts texts = Texts({"<bos>", "a", "\xc3", "\xa9"});
  EXPECT_EQ(texts.Decode({0, 1, 2, 3, 0, 1}), "a\u00e9a");
  EXPECT_EQ(texts.Decode({1, 2}), "a\ufffd");
}

TEST(TokenPlacesTest, APlaceIsWhereTheCharacterBegins) {
  const TokenTexts texts = Texts({"<bos>", "ab", "\xc3", "\xa9", "\u20acc"});
  TokenPlaces places(texts, 10);
  std::vector<int64_t> offsets;
  for (const int32_t id : {0, 1, 2, 3, 4, 0, 1}) {
    offsets.push_back(places.Next({id, -1.0f, {}, {}}).text_offset);
  }
  EXPECT_THAT(offsets, ElementsAre(10, 10, 12, 12, 13, 15, 15));
}

TEST(TokenPlacesTest, WhatTheBackendSaysOfAPlaceIsKept) {
  const TokenTexts texts = Texts({"<bos>", "a", "b"});
  TokenPlaces places(texts);
  const std::vector<int32_t> ids = {2, 0};
  const std::vector<float> logprobs = {-0.25f, -1.5f};
  const GeneratedToken token = places.Next({1, -2.0f, ids, logprobs});
  EXPECT_EQ(token.token.bytes, "a");
  EXPECT_EQ(token.logprob, -2.0);
  ASSERT_EQ(token.top.size(), 2);
  EXPECT_EQ(token.top[0].token.bytes, "b");
  EXPECT_TRUE(token.top[1].token.control);
  EXPECT_EQ(token.top[1].logprob, -1.5);
  EXPECT_FALSE(places.Next({1, std::nullopt, {}, {}}).logprob.has_value());
  // One beginning within a character, before which there is nothing.
  const TokenTexts bytes = Texts({"", "\xa9"});
  EXPECT_EQ(TokenPlaces(bytes).Next({1, -1.0f, {}, {}}).text_offset, 0);
}

}  // namespace
}  // namespace onegrid::gateway
