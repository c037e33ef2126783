// Goal: schemas become grammars whose every text they allow, and what cannot be
// held to is refused by name.
#include "services/inference/grammar/schema_grammar.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"

namespace onegrid::grammar {
namespace {

using ::testing::HasSubstr;

void ExpectRefused(const std::string& schema, const std::string& words) {
  const auto grammar = SchemaGrammar(schema);
  ASSERT_FALSE(grammar.ok()) << schema;
  EXPECT_EQ(grammar.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(common::ErrorReason(grammar.status()), "STRUCTURE_NOT_SUPPORTED");
  EXPECT_THAT(std::string(grammar.status().message()), HasSubstr(words))
      << schema;
}

void ExpectTaken(const std::string& schema) {
  const auto grammar = SchemaGrammar(schema);
  EXPECT_TRUE(grammar.ok()) << schema << ": " << grammar.status();
}

TEST(SchemaGrammarTest, KeywordsThatAreNotHeldToAreRefusedByName) {
  for (const char* keyword :
       {"not", "if", "then", "dependentRequired", "dependentSchemas",
        "contains", "unevaluatedProperties", "unevaluatedItems",
        "propertyNames", "$dynamicRef", "$anchor", "minContains", "madeUp"}) {
    ExpectRefused(
        absl::StrCat(R"({"properties": {"a": {")", keyword, R"(": {}}}})"),
        absl::StrCat("\"#/properties/a\" is not supported: the keyword \"",
                     keyword, "\" is not"));
  }
}

TEST(SchemaGrammarTest, AnnotationsAreIgnored) {
  ExpectTaken(R"({"$schema": "s", "$id": "i", "title": "t", "description": "d",
                  "default": 1, "examples": [1], "$comment": "c",
                  "deprecated": true, "readOnly": true, "writeOnly": true,
                  "x-mine": 1, "type": "integer"})");
}

TEST(SchemaGrammarTest, WhatStandsBesideWhatIsNotCombinedIsRefused) {
  ExpectRefused(R"({"$ref": "#/$defs/a", "maxLength": 1, "$defs": {"a": {}}})",
                "maxLength beside $ref");
  ExpectRefused(R"({"enum": ["a"], "maxLength": 3})", "maxLength beside enum");
  ExpectRefused(R"({"anyOf": [{}], "required": ["a"]})",
                "required beside anyOf");
  ExpectRefused(R"({"allOf": [{}, {}]})", "allOf of more than one");
  ExpectRefused(R"({"type": "string", "pattern": "a", "maxLength": 3})",
                "two of pattern, format and lengths");
  ExpectRefused(R"({"type": "array", "uniqueItems": true})", "uniqueItems");
  ExpectRefused(R"({"type": "object", "minProperties": 2})", "minProperties");
  ExpectRefused(R"({"type": "number", "multipleOf": 2})", "multipleOf");
  ExpectRefused(R"({"type": "string", "format": "regex"})", "format regex");
  ExpectTaken(R"({"type": "array", "uniqueItems": true, "maxItems": 1})");
  ExpectTaken(R"({"type": "object", "minProperties": 1})");
  ExpectTaken(R"({"allOf": [{"type": "null"}], "description": "d"})");
}

TEST(SchemaGrammarTest, OneOfIsTakenWhereOptionsAreToldApart) {
  ExpectTaken(R"({"oneOf": [{"type": "string"}, {"type": "integer"}]})");
  ExpectTaken(R"({"oneOf": [{"const": 1}, {"enum": [2, "a"]}]})");
  const std::string option = R"({"type": "object", "required": ["k"],
                                 "properties": {"k": {"const": "$"}}})";
  std::string other = option;
  other.replace(other.find('$'), 1, "b");
  ExpectTaken(absl::StrCat(R"({"oneOf": [)", option, ",", other, "]}"));
  ExpectRefused(absl::StrCat(R"({"oneOf": [)", option, ",", option, "]}"),
                "oneOf");
  ExpectRefused(R"({"oneOf": [{"type": "number"}, {"type": "integer"}]})",
                "oneOf");
}

TEST(SchemaGrammarTest, SchemasThatNothingMeetsAreRefused) {
  ExpectRefused("false", "false allows nothing");
  ExpectRefused(R"({"type": "integer", "minimum": 2, "maximum": 1})",
                "hold no number");
  ExpectRefused(R"({"type": "integer", "exclusiveMinimum": 1,
                    "exclusiveMaximum": 2})",
                "hold no number");
  ExpectRefused(R"({"type": "string", "minLength": 2, "maxLength": 1})",
                "maxLength");
  ExpectRefused(R"({"type": "array", "minItems": 2, "maxItems": 1})", "items");
  ExpectRefused(R"({"type": "string", "enum": [1]})", "enum allows nothing");
  ExpectRefused(R"({"required": ["a"], "additionalProperties": false})",
                "required has \"a\"");
  ExpectRefused(R"({"type": "object", "required": ["a"],
                    "properties": {"a": {"$ref": "#"}}})",
                "requires itself");
  ExpectRefused(R"({"$ref": "#"})", "requires itself");
}

TEST(SchemaGrammarTest, HostileSchemasAreRefused) {
  ExpectRefused(std::string(100'000, ' '), "bytes, at most");
  ExpectRefused(std::string(100, '[') + std::string(100, ']'), "deeper");
  ExpectRefused(R"({"type": )", "not JSON");
  ExpectRefused("{\"const\": \"\xff\"}", "not JSON");
  ExpectRefused("3", "neither an object nor a boolean");
  ExpectRefused(R"({"type": "string", "maxLength": 1000000000})", "at most");
  ExpectRefused(R"({"type": "array", "minItems": 1000000000})", "at most");
  ExpectRefused(R"({"type": "string", "minLength": -1})", "not a count");
  ExpectRefused(R"({"type": "number", "minimum": 1e300})", "hold no number");
  ExpectRefused(R"({"type": "integer", "multipleOf": 1, "minimum": "1"})",
                "not a number");
  ExpectRefused(R"({"$ref": "https://example.org/schema"})", "$ref");
  ExpectRefused(R"({"$ref": "#/nothing"})", "names nothing");
  std::string many = R"({"anyOf": [)";
  for (int i = 0; i < 300; ++i) {
    absl::StrAppend(&many, i == 0 ? "" : ",", R"({"type": "string",)",
                    "\"minLength\":", i, "}");
  }
  ExpectRefused(many + "]}", "grammar of more than");
}

TEST(SchemaGrammarTest, LongChainsOfReferencesAreNoDepth) {
  std::string schema = R"({"$ref": "#/$defs/d0", "$defs": {)";
  for (int i = 0; i < 900; ++i) {
    absl::StrAppend(&schema, "\"d", i, R"(": {"$ref": "#/$defs/d)", i + 1,
                    "\"}, ");
  }
  ExpectTaken(schema + R"("d900": {"type": "null"}}})");
}

}  // namespace
}  // namespace onegrid::grammar
