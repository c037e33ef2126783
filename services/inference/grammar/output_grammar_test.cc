// Goal: an output that follows the masks is one of the structure, whatever the
// tokens are. Method: texts are fed byte by byte or by longer tokens.
#include "services/inference/grammar/output_grammar.h"

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"

namespace onegrid::grammar {
namespace {

constexpr int32_t kEos = 1;
constexpr int32_t kFirstByte = 4;
constexpr int32_t kTurnEnd = 260;
constexpr int32_t kMark = 261;
constexpr int32_t kUnused = 262;

model::Vocabulary TestVocabulary() {
  model::Vocabulary vocabulary;
  const auto add = [&](const std::string& text, model::TokenType type) {
    vocabulary.tokens.push_back({text, 0, type});
  };
  for (const char* name : {"<pad>", "<eos>", "<bos>"}) {
    add(name, model::TokenType::kControl);
  }
  add("<unk>", model::TokenType::kUnknown);
  for (int byte = 0; byte < 256; ++byte) {
    add(absl::StrFormat("<0x%02X>", byte), model::TokenType::kByte);
  }
  add("<end_of_turn>", model::TokenType::kControl);
  add("<|channel>", model::TokenType::kUserDefined);
  add("<unused0>", model::TokenType::kUnused);
  for (const char* text :
       {"{\"", "\":", "\",\"", "\"}", "é", "日本", "🙂", "\xE2\x96\x81", "a",
        "b", "ab", "12", "true", "],", "\\\"", "\\n", "}}"}) {
    add(text, model::TokenType::kNormal);
  }
  add("\n\n", model::TokenType::kUserDefined);
  vocabulary.bos_id = 2;
  vocabulary.eos_id = kEos;
  vocabulary.unknown_id = 3;
  vocabulary.pad_id = 0;
  return vocabulary;
}

class OutputGrammarTest : public testing::Test {
 protected:
  OutputGrammarTest() : tokenizer_(TestVocabulary()), grammars_(tokenizer_) {}

  std::unique_ptr<OutputMatcher> Matcher(const v1::Structure& structure,
                                         bool may_end = true) {
    auto grammar = grammars_.Compile(structure);
    EXPECT_TRUE(grammar.ok()) << grammar.status();
    if (!grammar.ok()) return nullptr;
    return std::make_unique<OutputMatcher>(*std::move(grammar), may_end);
  }

  std::vector<bool> Allowed(OutputMatcher& matcher) {
    // An embedding may have rows beyond the tokens.
    const auto tokens = static_cast<size_t>(tokenizer_.vocab_size());
    std::vector<float> logits(tokens + 70, 1);
    EXPECT_TRUE(matcher.Mask(absl::MakeSpan(logits)).ok());
    for (size_t i = tokens; i < logits.size(); ++i) EXPECT_LT(logits[i], 0);
    logits.resize(tokens);
    std::vector<bool> allowed;
    for (const float logit : logits) {
      EXPECT_TRUE(logit == 1 || (std::isinf(logit) && logit < 0));
      allowed.push_back(logit == 1);
    }
    return allowed;
  }

  // Whether the masks lead along the bytes of a text to where it may end.
  bool Takes(const v1::Structure& structure, const std::string& text) {
    const auto matcher = Matcher(structure);
    if (matcher == nullptr) return false;
    for (const char c : text) {
      const int32_t token = kFirstByte + static_cast<unsigned char>(c);
      if (!Allowed(*matcher)[token]) return false;
      EXPECT_TRUE(matcher->Accept(token).ok());
    }
    return Allowed(*matcher)[kEos];
  }

  // A text of random tokens that may be next; empty where it did not end.
  std::string Walk(const v1::Structure& structure, uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto matcher = Matcher(structure);
    std::string text;
    for (int i = 0; i < 60; ++i) {
      const std::vector<bool> allowed = Allowed(*matcher);
      if (allowed[kEos] && (i > 20 || random() % 4 == 0)) return text;
      std::vector<int32_t> tokens;
      for (size_t t = 0; t < allowed.size(); ++t) {
        const auto token = static_cast<int32_t>(t);
        if (allowed[t] && !tokenizer_.IsEndOfGeneration(token)) {
          tokens.push_back(token);
        }
      }
      if (tokens.empty()) return text;
      int32_t token = tokens[random() % tokens.size()];
      // Strings end now and then.
      if (random() % 4 == 0 && allowed[kFirstByte + '"']) {
        token = kFirstByte + '"';
      }
      EXPECT_TRUE(matcher->Accept(token).ok());
      text += tokenizer_.Piece(token);
    }
    return "";
  }

  const model::Tokenizer tokenizer_;
  OutputGrammars grammars_;
};

v1::Structure Schema(const std::string& schema) {
  v1::Structure structure;
  structure.set_json_schema(schema);
  return structure;
}

v1::Structure Regex(const std::string& regex) {
  v1::Structure structure;
  structure.set_regex(regex);
  return structure;
}

TEST_F(OutputGrammarTest, ControlTokensAndMarksAreNeverAllowed) {
  v1::Structure structure = Regex("[\\s\\S]*");
  const auto matcher = Matcher(structure);
  const std::vector<bool> allowed = Allowed(*matcher);
  for (const int32_t token : {0, 2, 3, kMark, kUnused}) {
    EXPECT_FALSE(allowed[token]) << token;
  }
  EXPECT_TRUE(allowed[kEos]);
  EXPECT_TRUE(allowed[kTurnEnd]);
  EXPECT_TRUE(allowed[kFirstByte + 'x']);
  // A byte that no character begins with.
  EXPECT_FALSE(allowed[kFirstByte + 0xFF]);
  EXPECT_FALSE(allowed[kFirstByte + 0x80]);
}

TEST_F(OutputGrammarTest, StringsAreHeldToTheirContent) {
  const v1::Structure lengths =
      Schema(R"({"type": "string", "minLength": 1, "maxLength": 2})");
  EXPECT_TRUE(Takes(lengths, "\"a\""));
  EXPECT_TRUE(Takes(lengths, "\"日🙂\""));
  EXPECT_TRUE(Takes(lengths, "\"\\n\\\"\""));
  EXPECT_FALSE(Takes(lengths, "\"\""));
  EXPECT_FALSE(Takes(lengths, "\"abc\""));
  EXPECT_FALSE(Takes(lengths, "\"\t\""));
  EXPECT_FALSE(Takes(lengths, "\"\xED\xA0\x80\""));
  const v1::Structure any = Schema(R"({"type": "string"})");
  EXPECT_TRUE(Takes(any, "\"\\u00e9\\ud83d\\ude00\""));
  EXPECT_FALSE(Takes(any, "\"\\ud83d\""));
  EXPECT_FALSE(Takes(any, "\"\\x\""));
  const v1::Structure pattern =
      Schema(R"({"type": "string", "pattern": "^[\"\\\\é]{2}$"})");
  EXPECT_TRUE(Takes(pattern, "\"\\\"\\\\\""));
  EXPECT_TRUE(Takes(pattern, "\"éé\""));
  EXPECT_FALSE(Takes(pattern, "\"\"\"\""));
}

TEST_F(OutputGrammarTest, NumbersAreHeldToTheirBounds) {
  const v1::Structure integers =
      Schema(R"({"type": "integer", "minimum": -12, "exclusiveMaximum": 105})");
  for (int i = -130; i < 1100; ++i) {
    EXPECT_EQ(Takes(integers, absl::StrCat(i)), i >= -12 && i < 105) << i;
  }
  EXPECT_FALSE(Takes(integers, "-0"));
  EXPECT_FALSE(Takes(integers, "01"));
  const v1::Structure numbers = Schema(
      R"({"type": "number", "exclusiveMinimum": -0.25, "maximum": 1.5})");
  for (const char* text :
       {"-0.24", "-0.249999", "0", "0.000", "1.5", "1.500", "1", "0.123456"}) {
    EXPECT_TRUE(Takes(numbers, text)) << text;
  }
  for (const char* text :
       {"-0.25", "-0.250", "1.500001", "2", "-1", "00.5", ".5", "1.", "1e0"}) {
    EXPECT_FALSE(Takes(numbers, text)) << text;
  }
  const v1::Structure multiples = Schema(
      R"({"type": "integer", "minimum": -7, "maximum": 7, "multipleOf": 3})");
  for (int i = -9; i < 10; ++i) {
    EXPECT_EQ(Takes(multiples, absl::StrCat(i)), i % 3 == 0 && i * i < 49) << i;
  }
}

TEST_F(OutputGrammarTest, ObjectsAndArraysAreHeldToTheirShape) {
  const v1::Structure object = Schema(R"({"type": "object",
      "properties": {"b": {"type": "integer"}, "a": {"type": "null"},
                     "é": {"enum": [true, "x"]}},
      "required": ["a"], "additionalProperties": {"type": "boolean"}})");
  EXPECT_TRUE(Takes(object, R"({"a":null})"));
  EXPECT_TRUE(Takes(object, R"({"b": 1, "a": null, "é": "x"})"));
  EXPECT_TRUE(Takes(object, R"({"b":1,"a":null,"ab":true,"éé":false})"));
  EXPECT_FALSE(Takes(object, R"({})"));
  EXPECT_FALSE(Takes(object, R"({"b":1})"));
  EXPECT_FALSE(Takes(object, R"({"a":null,"b":1})"));
  EXPECT_FALSE(Takes(object, R"({"a":null,"é":true,"a":true})"));
  EXPECT_FALSE(Takes(object, R"({"a":null,"\u0061":true})"));
  EXPECT_FALSE(Takes(object, R"({"a":null,})"));
  const v1::Structure array = Schema(R"({"type": "array", "minItems": 1,
      "maxItems": 3, "prefixItems": [{"type": "null"}, {"const": 1}],
      "items": {"const": 2}})");
  EXPECT_TRUE(Takes(array, "[null]"));
  EXPECT_TRUE(Takes(array, "[null, 1,2]"));
  EXPECT_FALSE(Takes(array, "[]"));
  EXPECT_FALSE(Takes(array, "[null,2]"));
  EXPECT_FALSE(Takes(array, "[null,1,2,2]"));
  const v1::Structure list = Schema(R"({"type": "object", "required": ["n"],
      "properties": {"n": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}})");
  EXPECT_TRUE(Takes(list, R"({"n":{"n":{"n":null}}})"));
  EXPECT_FALSE(Takes(list, R"({"n":{"n":{}}})"));
}

TEST_F(OutputGrammarTest, RegexesAndChoicesAreHeldToAsAWhole) {
  EXPECT_TRUE(Takes(Regex("a(b|é)+$"), "abéb"));
  EXPECT_FALSE(Takes(Regex("a(b|é)+$"), "abéc"));
  EXPECT_FALSE(Takes(Regex("a(b|é)+$"), "a"));
  // Python's \d has these digits, too, and its \s has U+001C.
  EXPECT_FALSE(Takes(Regex("[^\\d]"), "१"));
  EXPECT_FALSE(Takes(Regex("\\D"), "१"));
  EXPECT_FALSE(Takes(Regex("\\S"), "\x1C"));
  EXPECT_FALSE(Takes(Regex("[^\\D]"), "é"));
  EXPECT_TRUE(Takes(Regex("[^\\D]"), "7"));
  EXPECT_TRUE(Takes(Regex("\\S"), "é"));
  v1::Structure structure;
  for (const char* text : {"a", "ab", "日本 \"x\""}) {
    structure.mutable_choices()->add_texts(text);
  }
  EXPECT_TRUE(Takes(structure, "a"));
  EXPECT_TRUE(Takes(structure, "ab"));
  EXPECT_TRUE(Takes(structure, "日本 \"x\""));
  EXPECT_FALSE(Takes(structure, "abb"));
  EXPECT_FALSE(Takes(structure, "日本"));
}

TEST_F(OutputGrammarTest, TokensOfSeveralCharactersLeadToTheSameTexts) {
  const v1::Structure structure = Schema(R"({"type": "object",
      "properties": {"a": {"type": "string"}, "b": {"type": "object"}}})");
  int ended = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const std::string text = Walk(structure, seed);
    if (text.empty()) continue;
    ++ended;
    const auto value = nlohmann::json::parse(text, nullptr, false);
    EXPECT_TRUE(value.is_object()) << text;
    EXPECT_TRUE(!value.contains("a") || value["a"].is_string()) << text;
  }
  EXPECT_GT(ended, 20);
}

TEST_F(OutputGrammarTest, EndsByItselfWhereNothingElseMayFollow) {
  v1::Structure structure;
  structure.mutable_choices()->add_texts("a");
  structure.mutable_choices()->add_texts("ab");
  for (const bool may_end : {true, false}) {
    const auto matcher = Matcher(structure, may_end);
    ASSERT_TRUE(matcher->Accept(kFirstByte + 'a').ok());
    EXPECT_FALSE(*matcher->AtEnd());
    EXPECT_EQ(Allowed(*matcher)[kEos], may_end);
    ASSERT_TRUE(matcher->Accept(kFirstByte + 'b').ok());
    EXPECT_TRUE(*matcher->AtEnd());
    EXPECT_TRUE(Allowed(*matcher)[kEos]);
  }
}

TEST_F(OutputGrammarTest, ATokenThatMayNotFollowIsAnError) {
  const auto matcher = Matcher(Regex("a"));
  EXPECT_EQ(matcher->Accept(kFirstByte + 'b').code(),
            absl::StatusCode::kInternal);
}

TEST_F(OutputGrammarTest, StructuresOfNoKindAndChoicesOfNothingAreRefused) {
  v1::Structure no_object, empty, many;
  no_object.set_json_object(false);
  empty.mutable_choices()->add_texts("");
  for (int i = 0; i < 2000; ++i) many.mutable_choices()->add_texts("a");
  v1::Structure none;
  none.mutable_choices();
  for (const v1::Structure& structure :
       {v1::Structure(), no_object, empty, many, none}) {
    const auto grammar = grammars_.Compile(structure);
    ASSERT_FALSE(grammar.ok());
    EXPECT_EQ(common::ErrorReason(grammar.status()), "STRUCTURE_NOT_SUPPORTED");
  }
}

TEST_F(OutputGrammarTest, TheSameStructureIsCompiledOnce) {
  const auto first = grammars_.Compile(Regex("a+"));
  const auto other = grammars_.Compile(Regex("b+"));
  const auto again = grammars_.Compile(Regex("a+"));
  ASSERT_TRUE(first.ok() && other.ok() && again.ok());
  EXPECT_EQ(*first, *again);
  EXPECT_NE(*first, *other);
}

}  // namespace
}  // namespace onegrid::grammar
