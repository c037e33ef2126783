#include "services/model/module_pattern.h"

#include <gtest/gtest.h>

#include "services/common/error_info.h"

namespace onegrid::model {
namespace {

bool Matches(const char* pattern, const char* module) {
  const auto parsed = ModulePattern::Parse(pattern);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() && parsed->Matches(module);
}

TEST(ModulePatternTest, FitsTheNameOrItsEndBehindADot) {
  constexpr char kQuery[] = "model.layers.1.self_attn.q_proj";
  EXPECT_TRUE(Matches("q_proj", kQuery));
  EXPECT_TRUE(Matches("self_attn.q_proj", kQuery));
  EXPECT_TRUE(Matches(kQuery, kQuery));
  EXPECT_TRUE(Matches("layers.{0-3}.*", kQuery));
  EXPECT_TRUE(Matches("self_attn.*", kQuery));
  EXPECT_TRUE(Matches("*", kQuery));
  EXPECT_FALSE(Matches("mlp.*", kQuery));
  EXPECT_FALSE(Matches("layers.{2-3}.*", kQuery));
  EXPECT_FALSE(
      Matches("layers.1.self_attn.q_proj", "model.layers.11.self_attn.q_proj"));
  EXPECT_FALSE(Matches("attn.q_proj", kQuery));
}

TEST(ModulePatternTest, WhatNothingCanMatchIsRefused) {
  for (const char* bad : {"", "w_proj", "model.layers.0", "layers.{0.q_proj"}) {
    EXPECT_EQ(common::ErrorReason(ModulePattern::Parse(bad).status()),
              "INVALID_NAME_PATTERN")
        << bad;
  }
}

}  // namespace
}  // namespace onegrid::model
