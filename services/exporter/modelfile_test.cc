#include "services/exporter/modelfile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/files.h"
#include "services/model/chat_pieces.h"
#include "services/model/chat_template.h"
#include "services/model/chat_turns.h"

namespace onegrid::exporter {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ModelfileTest, NamesEveryShardOnce) {
  const std::string text = OllamaModelfile({"m-1.gguf", "m-2.gguf"},
                                           PromptStyle::kGemma3Chat, false);
  EXPECT_THAT(text, HasSubstr("FROM ./m-1.gguf\nFROM ./m-2.gguf\nTEMPLATE"));
}

TEST(ModelfileTest, EachFamilyHasItsMarksAndItsTerms) {
  const std::string gemma3 =
      OllamaModelfile({"m.gguf"}, PromptStyle::kGemma3Chat, false);
  EXPECT_THAT(gemma3, HasSubstr("PARAMETER stop \"<end_of_turn>\"\n"));
  EXPECT_THAT(gemma3, HasSubstr("ai.google.dev/gemma/terms"));
  EXPECT_THAT(gemma3, Not(HasSubstr("<turn|>")));
  const std::string gemma4 =
      OllamaModelfile({"m.gguf"}, PromptStyle::kGemma4Chat, true);
  EXPECT_THAT(gemma4, HasSubstr("PARAMETER stop \"<turn|>\"\n"));
  EXPECT_THAT(gemma4, HasSubstr("<|turn>{{ .Role }}\n"));
  EXPECT_THAT(gemma4, HasSubstr("Apache License 2.0"));
}

// What Go 1.19.8's text/template, called as Ollama's template/template.go calls
// it (fb3076099), made of the template with this digest and the conversation
// below. Another template has to be rendered again.
struct Rendered {
  PromptStyle style;
  model::ChatFormat format;
  const char* template_sha256;
  const char* text;
};
const Rendered kRendered[] = {
    {PromptStyle::kGemma3Chat, model::ChatFormat::kGemma3,
     "614bf98142dd53a16a01abdab6d7fd648c62620b30df211edfb83183003ee518",
     "<start_of_turn>user\nS\n\none<end_of_turn>\n<start_of_turn>model\n"
     "two<end_of_turn>\n<start_of_turn>user\nthree<end_of_turn>\n"
     "<start_of_turn>model\nfour<end_of_turn>\n<start_of_turn>user\n"
     "five <b> \"q\" & {{x}}<end_of_turn>\n<start_of_turn>model\n"},
    {PromptStyle::kGemma4Chat, model::ChatFormat::kGemma4,
     "a7f496b7756eeb10de0470d210e834657aef2d75e015eff937c61ce5d89106eb",
     "<|turn>system\nS<turn|>\n<|turn>user\none<turn|>\n<|turn>model\n"
     "two<turn|>\n<|turn>user\nthree<turn|>\n<|turn>model\nfour<turn|>\n"
     "<|turn>user\nfive <b> \"q\" & {{x}}<turn|>\n<|turn>model\n"}};

TEST(ModelfileTest, TemplatesRenderTheChatFormatsOfTheFamilies) {
  using model::Role;
  const std::vector<model::Turn> turns = {
      {Role::kSystem, "S"},       {Role::kUser, "one"},
      {Role::kAssistant, "two"},  {Role::kUser, "three"},
      {Role::kAssistant, "four"}, {Role::kUser, "five <b> \"q\" & {{x}}"}};
  for (const Rendered& rendered : kRendered) {
    model::ChatOptions options;
    options.format = rendered.format;
    options.open_answer = true;
    EXPECT_EQ(common::Sha256Of(OllamaTemplate(rendered.style)),
              rendered.template_sha256);
    EXPECT_EQ(absl::StrCat("<bos>", rendered.text),
              model::ChatTemplate::Text(turns, options));
  }
}

TEST(ModelfileTest, RawPromptsHaveNoMarks) {
  const std::string text =
      OllamaModelfile({"m.gguf"}, PromptStyle::kRaw, false);
  EXPECT_THAT(text, HasSubstr("TEMPLATE \"\"\"{{ .Prompt }}\"\"\"\n"));
  EXPECT_THAT(text, Not(HasSubstr("stop")));
}

// Ollama ends a quoted text at the first three quotes before a space.
TEST(ModelfileTest, NoTemplateEndsItsOwnQuotes) {
  for (const PromptStyle style : {PromptStyle::kRaw, PromptStyle::kGemma3Chat,
                                  PromptStyle::kGemma4Chat}) {
    EXPECT_THAT(OllamaTemplate(style), Not(HasSubstr("\"\"\"")));
  }
}

}  // namespace
}  // namespace onegrid::exporter
