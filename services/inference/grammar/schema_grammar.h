// JSON Schemas as grammars.
#ifndef SERVICES_INFERENCE_GRAMMAR_SCHEMA_GRAMMAR_H_
#define SERVICES_INFERENCE_GRAMMAR_SCHEMA_GRAMMAR_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace onegrid::grammar {

// Most bytes of a schema, values within values, and members of an object.
inline constexpr size_t kMaxSchemaBytes = size_t{64} << 10;
inline constexpr int kMaxSchemaDepth = 64;
inline constexpr int kMaxSchemaMembers = 1000;

// A grammar, with the rule "root", of JSON texts that the schema allows (draft
// 2020-12). It is exact in one direction: every text is allowed, while some
// that are allowed are not texts of it. Members are written in the order of
// `properties`, others only where additionalProperties says so or there are no
// `properties`; an item after prefixItems only where `items` says so; white
// space is bounded; numbers are those of NumberExpression, strings those of
// StringExpression. A $ref is "#" or "#/...", into the schema itself.
//
// InvalidArgument (STRUCTURE_NOT_SUPPORTED), naming the place in the schema and
// the keyword: whatever would not be held to: an unknown keyword, one that this
// does not know how to hold to (not, if, dependent..., contains,
// unevaluated..., uniqueItems, propertyNames, most of allOf, oneOf and
// patternProperties), a value of a wrong type; a schema beyond the limits, or
// one that no finite JSON text meets.
absl::StatusOr<std::string> SchemaGrammar(absl::string_view schema);

// The grammar of any JSON object.
absl::StatusOr<std::string> JsonObjectGrammar();

}  // namespace onegrid::grammar

#endif  // SERVICES_INFERENCE_GRAMMAR_SCHEMA_GRAMMAR_H_
