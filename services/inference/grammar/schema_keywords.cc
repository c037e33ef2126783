#include "services/inference/grammar/schema_keywords.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "services/common/error_info.h"
#include "services/inference/grammar/grammar_text.h"

namespace onegrid::grammar {
namespace {

// Say nothing about what a value may be.
const std::set<std::string>& Annotations() {
  static const auto* const names = new std::set<std::string>(
      {"title", "description", "default", "examples", "example", "$schema",
       "$comment", "deprecated", "readOnly", "writeOnly", "$defs",
       "definitions", "discriminator", "contentMediaType", "contentEncoding"});
  return *names;
}

bool IsAnnotation(const std::string& name) {
  return Annotations().count(name) > 0 || absl::StartsWith(name, "x-");
}

struct Assertion {
  const char* name;
  const char* type;  // that it is about, "" for all
};

constexpr Assertion kAssertions[] = {
    {"type", ""},
    {"enum", ""},
    {"const", ""},
    {"$ref", ""},
    {"anyOf", ""},
    {"oneOf", ""},
    {"allOf", ""},
    {"properties", "object"},
    {"required", "object"},
    {"additionalProperties", "object"},
    {"patternProperties", "object"},
    {"minProperties", "object"},
    {"maxProperties", "object"},
    {"items", "array"},
    {"prefixItems", "array"},
    {"minItems", "array"},
    {"maxItems", "array"},
    {"uniqueItems", "array"},
    {"pattern", "string"},
    {"format", "string"},
    {"minLength", "string"},
    {"maxLength", "string"},
    {"minimum", "number"},
    {"maximum", "number"},
    {"exclusiveMinimum", "number"},
    {"exclusiveMaximum", "number"},
    {"multipleOf", "number"},
};

constexpr const char* kTypes[] = {"object",  "array",   "string", "number",
                                  "integer", "boolean", "null"};

// Of a schema that is reached over $ref alone.
const SchemaJson& Target(const SchemaJson& root, const SchemaJson& schema) {
  const SchemaJson* target = &schema;
  for (int steps = 0; steps < 16; ++steps) {
    const SchemaJson* ref = FindKeyword(*target, "$ref");
    if (ref == nullptr) break;
    auto next = ResolveRef(root, *ref, "");
    if (!next.ok()) break;
    target = *next;
  }
  return *target;
}

// The only values of a schema; none if there are others.
std::vector<SchemaJson> Constants(const SchemaJson& schema) {
  if (const SchemaJson* value = FindKeyword(schema, "const")) return {*value};
  const SchemaJson* list = FindKeyword(schema, "enum");
  if (list == nullptr || !list->is_array()) return {};
  return {list->begin(), list->end()};
}

// No value is in both, and neither is empty.
bool HaveNothingInCommon(const std::vector<SchemaJson>& a,
                         const std::vector<SchemaJson>& b) {
  if (a.empty() || b.empty()) return false;
  return std::none_of(a.begin(), a.end(), [&](const SchemaJson& value) {
    // Members may be in any order, so text does not tell objects apart.
    return value.is_structured() ||
           std::find(b.begin(), b.end(), value) != b.end();
  });
}

// The types that a schema's values may have; empty: any.
std::vector<std::string> PossibleTypes(const SchemaJson& schema) {
  std::vector<std::string> types;
  const std::vector<SchemaJson> constants = Constants(schema);
  if (constants.empty()) {
    const SchemaJson* type = FindKeyword(schema, "type");
    auto read = ReadTypes(schema, "");
    return type != nullptr && read.ok() ? *read : types;
  }
  for (const char* type : kTypes) {
    if (std::any_of(constants.begin(), constants.end(),
                    [&](const auto& value) { return IsOfType(value, type); })) {
      types.emplace_back(type);
    }
  }
  return types;
}

bool HaveTypesApart(const SchemaJson& a, const SchemaJson& b) {
  const auto wide = [](std::vector<std::string> types) {
    std::replace(types.begin(), types.end(), std::string("integer"),
                 std::string("number"));
    return types;
  };
  const std::vector<std::string> first = wide(PossibleTypes(a));
  const std::vector<std::string> second = wide(PossibleTypes(b));
  if (first.empty() || second.empty()) return false;
  return std::none_of(first.begin(), first.end(), [&](const std::string& type) {
    return std::find(second.begin(), second.end(), type) != second.end();
  });
}

bool Requires(const SchemaJson& schema, const std::string& name) {
  const SchemaJson* required = FindKeyword(schema, "required");
  return required != nullptr && required->is_array() &&
         std::find(required->begin(), required->end(), name) != required->end();
}

bool HaveTagsApart(const SchemaJson& root, const SchemaJson& a,
                   const SchemaJson& b) {
  // A value that is no object has no members.
  if (PossibleTypes(a) != std::vector<std::string>{"object"} ||
      PossibleTypes(b) != std::vector<std::string>{"object"}) {
    return false;
  }
  const SchemaJson* first = FindKeyword(a, "properties");
  const SchemaJson* second = FindKeyword(b, "properties");
  if (first == nullptr || second == nullptr || !first->is_object()) {
    return false;
  }
  for (const auto& [name, schema] : first->items()) {
    const SchemaJson* other = FindKeyword(*second, name.c_str());
    if (other == nullptr || !Requires(a, name) || !Requires(b, name)) continue;
    if (HaveNothingInCommon(Constants(Target(root, schema)),
                            Constants(Target(root, *other)))) {
      return true;
    }
  }
  return false;
}

}  // namespace

absl::Status SchemaError(absl::string_view path, absl::string_view message) {
  return NotSupported(absl::StrCat("the schema at \"#", path,
                                   "\" is not supported: ", message));
}

absl::Status At(absl::string_view path, const absl::Status& status) {
  if (status.ok() || absl::StartsWith(status.message(), "the schema")) {
    return status;
  }
  return SchemaError(path, status.message());
}

const SchemaJson* FindKeyword(const SchemaJson& schema, const char* keyword) {
  if (!schema.is_object()) return nullptr;
  const auto found = schema.find(keyword);
  return found == schema.end() ? nullptr : &*found;
}

absl::Status CheckKeywords(const SchemaJson& schema, absl::string_view path,
                           bool is_root) {
  for (const auto& [name, value] : schema.items()) {
    const bool known =
        std::any_of(std::begin(kAssertions), std::end(kAssertions),
                    [&, &key = name](const auto& a) { return a.name == key; });
    if (known || IsAnnotation(name) || (is_root && name == "$id")) continue;
    return SchemaError(path, absl::StrCat("the keyword \"", name,
                                          "\" is not one that is held to"));
  }
  return absl::OkStatus();
}

absl::Status CheckAlone(const SchemaJson& schema, absl::string_view path,
                        absl::string_view keyword,
                        const std::set<std::string>& allowed) {
  for (const auto& [name, value] : schema.items()) {
    if (name == keyword || name == "$id" || IsAnnotation(name) ||
        allowed.count(name) > 0) {
      continue;
    }
    return SchemaError(path, absl::StrCat(name, " beside ", keyword));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<int64_t>> ReadCount(const SchemaJson& schema,
                                                 const char* keyword,
                                                 absl::string_view path) {
  const SchemaJson* value = FindKeyword(schema, keyword);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_integer() ||
      (!value->is_number_unsigned() && value->get<int64_t>() < 0) ||
      value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return SchemaError(path, absl::StrCat(keyword, " is not a count"));
  }
  return value->get<int64_t>();
}

absl::StatusOr<std::vector<std::string>> ReadTypes(const SchemaJson& schema,
                                                   absl::string_view path) {
  std::vector<std::string> types;
  const SchemaJson* named = FindKeyword(schema, "type");
  if (named == nullptr) {
    for (const Assertion& assertion : kAssertions) {
      const std::string type = assertion.type;
      if (type.empty() || FindKeyword(schema, assertion.name) == nullptr ||
          std::find(types.begin(), types.end(), type) != types.end()) {
        continue;
      }
      types.push_back(type);
    }
    return types;
  }
  const SchemaJson list =
      named->is_array() ? *named : SchemaJson::array({*named});
  for (const SchemaJson& type : list) {
    const bool known = type.is_string() &&
                       std::find(std::begin(kTypes), std::end(kTypes),
                                 type.get<std::string>()) != std::end(kTypes);
    if (!known)
      return SchemaError(path, "type is not a type or a list of some");
    types.push_back(type.get<std::string>());
  }
  if (types.empty()) return SchemaError(path, "type is an empty list");
  return types;
}

bool IsOfType(const SchemaJson& value, absl::string_view type) {
  if (type == "integer") {
    if (!value.is_number_float()) return value.is_number_integer();
    const double number = value.get<double>();
    return std::floor(number) == number;
  }
  if (type == "number") return value.is_number();
  return type == value.type_name();
}

absl::StatusOr<const SchemaJson*> ResolveRef(const SchemaJson& root,
                                             const SchemaJson& ref,
                                             absl::string_view path) {
  const std::string uri = ref.is_string() ? ref.get<std::string>() : "";
  if (uri != "#" && !absl::StartsWith(uri, "#/")) {
    return SchemaError(path, "$ref is not \"#\" or \"#/...\"");
  }
  if (absl::StrContains(uri, '%')) {
    return SchemaError(path, "$ref has an escape of a URI");
  }
  const SchemaJson* place = &root;
  if (uri == "#") return place;
  for (const absl::string_view token : absl::StrSplit(uri.substr(2), '/')) {
    const std::string name =
        absl::StrReplaceAll(token, {{"~1", "/"}, {"~0", "~"}});
    size_t index = 0;
    if (place->is_object() && place->contains(name)) {
      place = &*place->find(name);
    } else if (place->is_array() && absl::SimpleAtoi(name, &index) &&
               index < place->size()) {
      place = &(*place)[index];
    } else {
      return SchemaError(path, absl::StrCat("$ref ", uri, " names nothing"));
    }
  }
  return place;
}

bool AreDisjoint(const SchemaJson& root, const SchemaJson& options) {
  for (size_t i = 0; i < options.size(); ++i) {
    const SchemaJson& a = Target(root, options[i]);
    for (size_t j = 0; j < i; ++j) {
      const SchemaJson& b = Target(root, options[j]);
      if (!HaveTypesApart(a, b) &&
          !HaveNothingInCommon(Constants(a), Constants(b)) &&
          !HaveTagsApart(root, a, b)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace onegrid::grammar
