// What stands in a JSON Schema, read without making a grammar of it.
#ifndef SERVICES_INFERENCE_GRAMMAR_SCHEMA_KEYWORDS_H_
#define SERVICES_INFERENCE_GRAMMAR_SCHEMA_KEYWORDS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace onegrid::grammar {

// Keeps the order of members.
using SchemaJson = nlohmann::ordered_json;

// NotSupported with the place in the schema in front.
absl::Status SchemaError(absl::string_view path, absl::string_view message);

// `path` with the error of an expression, and OK as it is.
absl::Status At(absl::string_view path, const absl::Status& status);

// The keyword's value; nullptr where there is none.
const SchemaJson* FindKeyword(const SchemaJson& schema, const char* keyword);

// SchemaError: a keyword that is neither known nor an annotation. `is_root`: of
// the whole schema, which alone may have an $id.
absl::Status CheckKeywords(const SchemaJson& schema, absl::string_view path,
                           bool is_root);

// SchemaError: an assertion other than `allowed` stands beside `keyword`.
absl::Status CheckAlone(const SchemaJson& schema, absl::string_view path,
                        absl::string_view keyword,
                        const std::set<std::string>& allowed);

// A count: not an integer from 0 on is a SchemaError.
absl::StatusOr<std::optional<int64_t>> ReadCount(const SchemaJson& schema,
                                                 const char* keyword,
                                                 absl::string_view path);

// The types that the schema names in `type`, or those that its other keywords
// are about; none if it says nothing of types. SchemaError: no list of types.
absl::StatusOr<std::vector<std::string>> ReadTypes(const SchemaJson& schema,
                                                   absl::string_view path);

// Whether a value is of a type by its name.
bool IsOfType(const SchemaJson& value, absl::string_view type);

// What a local $ref names. SchemaError: another kind of reference, or there is
// nothing.
absl::StatusOr<const SchemaJson*> ResolveRef(const SchemaJson& root,
                                             const SchemaJson& ref,
                                             absl::string_view path);

// Whether no value meets two of the options, as far as their types, constants,
// and constants of members that all require tell.
bool AreDisjoint(const SchemaJson& root, const SchemaJson& options);

}  // namespace onegrid::grammar

#endif  // SERVICES_INFERENCE_GRAMMAR_SCHEMA_KEYWORDS_H_
