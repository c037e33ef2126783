#include "services/model/chat_format.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace onegrid::model {
namespace {

TEST(ChatFormatTest, EachFormatHasItsName) {
  for (const ChatFormat format :
       {ChatFormat::kGemma3, ChatFormat::kGemma4,
        ChatFormat::kGemma4EmptyThought, ChatFormat::kGemma4Second,
        ChatFormat::kGemma4SecondEmptyThought, ChatFormat::kGemma4First,
        ChatFormat::kGemma4FirstEmptyThought}) {
    const char* const name = RulesOf(format).name;
    ASSERT_TRUE(ChatFormatNamed(name).has_value()) << name;
    EXPECT_EQ(*ChatFormatNamed(name), format);
  }
  EXPECT_FALSE(ChatFormatNamed("").has_value());
  EXPECT_FALSE(ChatFormatNamed("gemma").has_value());
  EXPECT_EQ(ChatFormatNames(),
            "gemma3, gemma4, gemma4-empty-thought, gemma4-second, "
            "gemma4-second-empty-thought, gemma4-first, "
            "gemma4-first-empty-thought");
}

TEST(ChatFormatTest, OtherTemplatesHaveNoFormat) {
  const std::string empty_thought =
      "{%- if not enable_thinking | default(false) -%}\n"
      "{{- '<|channel>thought\\n<channel|>' -}}\n{%- endif -%}";
  for (const std::string& jinja :
       {std::string(), std::string("\n"), std::string("{{ messages }}"),
        empty_thought, absl::StrCat("a\r\n", empty_thought, "\n")}) {
    EXPECT_FALSE(FormatOfTemplate(jinja).has_value()) << jinja;
  }
}

TEST(ChatFormatTest, ModelsWithPerLayerInputsOpenAnAnswerWithoutAThought) {
  GemmaConfig config;
  EXPECT_EQ(DefaultChatFormat(config), ChatFormat::kGemma3);
  config.family = GemmaFamily::kGemma4;
  EXPECT_EQ(DefaultChatFormat(config), ChatFormat::kGemma4EmptyThought);
  config.per_layer_width = 256;
  EXPECT_EQ(DefaultChatFormat(config), ChatFormat::kGemma4);
}

}  // namespace
}  // namespace onegrid::model
