#include "services/inference/grammar/schema_grammar.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/json_depth.h"
#include "services/inference/grammar/grammar_rules.h"
#include "services/inference/grammar/grammar_text.h"
#include "services/inference/grammar/number_grammar.h"
#include "services/inference/grammar/object_grammar.h"
#include "services/inference/grammar/schema_keywords.h"
#include "services/inference/grammar/string_grammar.h"

namespace onegrid::grammar {
namespace {

// Each of them is an expression within the one before it.
constexpr size_t kMaxPrefixItems = 64;

// An expression, and what its texts cannot do without.
struct Body {
  std::string expression;
  GrammarRules::Needs needs = GrammarRules::Needs(1);
};

class Writer {
 public:
  explicit Writer(const SchemaJson& root) : root_(root) {}

  absl::StatusOr<std::string> Write() {
    ASSIGN_OR_RETURN(const std::string root, Rule(root_, ""));
    while (!pending_.empty()) {
      const auto [schema, path] = std::move(pending_.back());
      pending_.pop_back();
      RETURN_IF_ERROR(Define(*schema, path));
    }
    return rules_.Text(root);
  }

 private:
  // The rule of a schema, written once.
  absl::StatusOr<std::string> Rule(const SchemaJson& schema,
                                   const std::string& path);
  // Writes the rule that written_ names.
  absl::Status Define(const SchemaJson& schema, const std::string& path);
  absl::StatusOr<Body> BodyOf(const SchemaJson& schema,
                              const std::string& path);
  absl::StatusOr<Body> Reference(const SchemaJson& schema,
                                 const std::string& path);
  absl::StatusOr<Body> Options(const SchemaJson& schema,
                               const std::string& path);
  absl::StatusOr<Body> Values(const SchemaJson& schema,
                              const std::string& path);
  absl::StatusOr<Body> OfType(const SchemaJson& schema, const std::string& path,
                              const std::string& type);
  absl::StatusOr<Body> Number(const SchemaJson& schema, const std::string& path,
                              bool integer);
  absl::StatusOr<Body> String(const SchemaJson& schema,
                              const std::string& path);
  absl::StatusOr<Body> Array(const SchemaJson& schema, const std::string& path);
  absl::StatusOr<Body> Object(const SchemaJson& schema,
                              const std::string& path);
  absl::StatusOr<std::vector<Member>> Members(const SchemaJson& schema,
                                              const std::string& path);
  absl::Status Others(const SchemaJson& schema, const std::string& path,
                      ObjectShape* shape);
  absl::Status CheckMemberCounts(const SchemaJson& schema,
                                 const std::string& path, ObjectShape* shape);

  const SchemaJson& root_;
  GrammarRules rules_;
  std::map<const SchemaJson*, std::string> written_;
  // What a $ref names is written later, so that depth is that of the text.
  std::vector<std::pair<const SchemaJson*, std::string>> pending_;
};

absl::StatusOr<std::string> Writer::Rule(const SchemaJson& schema,
                                         const std::string& path) {
  const auto [found, is_new] = written_.emplace(&schema, "");
  if (!is_new) return found->second;
  const std::string name = rules_.Declare();
  found->second = name;
  RETURN_IF_ERROR(Define(schema, path));
  return name;
}

absl::Status Writer::Define(const SchemaJson& schema, const std::string& path) {
  ASSIGN_OR_RETURN(Body body, BodyOf(schema, path));
  return At(path, rules_.Define(written_.at(&schema), body.expression,
                                std::move(body.needs)));
}

absl::StatusOr<Body> Writer::BodyOf(const SchemaJson& schema,
                                    const std::string& path) {
  if (schema == true) return Body{"any"};
  if (!schema.is_object()) {
    return SchemaError(path, schema == false
                                 ? "false allows nothing"
                                 : "this is neither an object nor a boolean");
  }
  RETURN_IF_ERROR(CheckKeywords(schema, path, &schema == &root_));
  if (schema.contains("$ref")) return Reference(schema, path);
  if (schema.contains("enum") || schema.contains("const")) {
    return Values(schema, path);
  }
  for (const char* keyword : {"anyOf", "oneOf", "allOf"}) {
    if (schema.contains(keyword)) return Options(schema, path);
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> types,
                   ReadTypes(schema, path));
  if (types.empty()) return Body{"any"};
  if (types.size() == 1) return OfType(schema, path, types.front());
  std::vector<std::string> choices;
  Body body{"", {}};
  for (const std::string& type : types) {
    ASSIGN_OR_RETURN(Body one, OfType(schema, path, type));
    choices.push_back(std::move(one.expression));
    for (auto& needs : one.needs) body.needs.push_back(std::move(needs));
  }
  body.expression = AnyOf(choices);
  return body;
}

absl::StatusOr<Body> Writer::Reference(const SchemaJson& schema,
                                       const std::string& path) {
  RETURN_IF_ERROR(CheckAlone(schema, path, "$ref", {}));
  ASSIGN_OR_RETURN(const SchemaJson* target,
                   ResolveRef(root_, schema["$ref"], path));
  const auto [found, is_new] = written_.emplace(target, "");
  if (is_new) {
    found->second = rules_.Declare();
    pending_.emplace_back(target, schema["$ref"].get<std::string>().substr(1));
  }
  const std::string& rule = found->second;
  return Body{rule, {{rule}}};
}

absl::StatusOr<Body> Writer::Options(const SchemaJson& schema,
                                     const std::string& path) {
  const std::string keyword = schema.contains("anyOf")   ? "anyOf"
                              : schema.contains("oneOf") ? "oneOf"
                                                         : "allOf";
  RETURN_IF_ERROR(CheckAlone(schema, path, keyword, {}));
  const SchemaJson& options = schema[keyword];
  if (!options.is_array() || options.empty()) {
    return SchemaError(path, absl::StrCat(keyword, " is not a list of some"));
  }
  if (keyword == "allOf" && options.size() > 1) {
    return SchemaError(path, "allOf of more than one");
  }
  if (keyword == "oneOf" && !AreDisjoint(root_, options)) {
    return SchemaError(path,
                       "oneOf of options that are not told apart by their "
                       "types or by constants; anyOf is supported");
  }
  std::vector<std::string> choices;
  Body body{"", {}};
  for (size_t i = 0; i < options.size(); ++i) {
    ASSIGN_OR_RETURN(
        const std::string rule,
        Rule(options[i], absl::StrCat(path, "/", keyword, "/", i)));
    choices.push_back(rule);
    body.needs.push_back({rule});
  }
  body.expression = AnyOf(choices);
  return body;
}

absl::StatusOr<Body> Writer::Values(const SchemaJson& schema,
                                    const std::string& path) {
  const std::string keyword = schema.contains("enum") ? "enum" : "const";
  RETURN_IF_ERROR(CheckAlone(schema, path, keyword, {"type"}));
  SchemaJson values = schema[keyword];
  if (keyword == "const") values = SchemaJson::array({schema["const"]});
  if (!values.is_array()) return SchemaError(path, "enum is not a list");
  std::vector<std::string> types;
  if (schema.contains("type")) {
    ASSIGN_OR_RETURN(types, ReadTypes(schema, path));
  }
  std::vector<std::string> choices;
  for (const SchemaJson& value : values) {
    const bool fits = types.empty() ||
                      std::any_of(types.begin(), types.end(), [&](auto& type) {
                        return IsOfType(value, type);
                      });
    if (fits) choices.push_back(Literal(value.dump()));
  }
  if (choices.empty()) {
    return SchemaError(path, absl::StrCat(keyword, " allows nothing"));
  }
  return Body{AnyOf(choices)};
}

absl::StatusOr<Body> Writer::OfType(const SchemaJson& schema,
                                    const std::string& path,
                                    const std::string& type) {
  if (type == "null") return Body{"\"null\""};
  if (type == "boolean") return Body{"(\"true\" | \"false\")"};
  if (type == "string") return String(schema, path);
  if (type == "array") return Array(schema, path);
  if (type == "object") return Object(schema, path);
  return Number(schema, path, type == "integer");
}

absl::StatusOr<Body> Writer::Number(const SchemaJson& schema,
                                    const std::string& path, bool integer) {
  NumberBounds bounds;
  const std::pair<const char*, std::optional<std::string>*> kinds[] = {
      {"minimum", &bounds.minimum},
      {"exclusiveMinimum", &bounds.exclusive_minimum},
      {"maximum", &bounds.maximum},
      {"exclusiveMaximum", &bounds.exclusive_maximum}};
  for (const auto& [keyword, bound] : kinds) {
    const SchemaJson* value = FindKeyword(schema, keyword);
    if (value == nullptr) continue;
    if (!value->is_number()) {
      return SchemaError(path, absl::StrCat(keyword, " is not a number"));
    }
    *bound = value->dump();
  }
  ASSIGN_OR_RETURN(bounds.multiple_of, ReadCount(schema, "multipleOf", path));
  if (bounds.multiple_of && (!integer || *bounds.multiple_of == 0)) {
    return SchemaError(path,
                       "multipleOf is held to only of the type integer, and "
                       "from 1 on");
  }
  if (bounds.multiple_of == 1) bounds.multiple_of.reset();
  if (bounds.empty()) return Body{integer ? "int" : "num"};
  auto expression = NumberExpression(bounds, integer);
  if (!expression.ok()) return At(path, expression.status());
  return Body{*std::move(expression)};
}

absl::StatusOr<Body> Writer::String(const SchemaJson& schema,
                                    const std::string& path) {
  StringBounds bounds;
  const std::pair<const char*, std::optional<std::string>*> kinds[] = {
      {"pattern", &bounds.pattern}, {"format", &bounds.format}};
  for (const auto& [keyword, bound] : kinds) {
    const SchemaJson* value = FindKeyword(schema, keyword);
    if (value == nullptr) continue;
    if (!value->is_string()) {
      return SchemaError(path, absl::StrCat(keyword, " is not a string"));
    }
    *bound = value->get<std::string>();
  }
  ASSIGN_OR_RETURN(const auto min, ReadCount(schema, "minLength", path));
  bounds.min_length = min.value_or(0);
  ASSIGN_OR_RETURN(bounds.max_length, ReadCount(schema, "maxLength", path));
  auto expression = StringExpression(bounds, rules_);
  if (!expression.ok()) return At(path, expression.status());
  return Body{*std::move(expression)};
}

absl::StatusOr<Body> Writer::Array(const SchemaJson& schema,
                                   const std::string& path) {
  ASSIGN_OR_RETURN(const auto min, ReadCount(schema, "minItems", path));
  ASSIGN_OR_RETURN(const auto max, ReadCount(schema, "maxItems", path));
  const SchemaJson* unique = FindKeyword(schema, "uniqueItems");
  if (unique != nullptr && *unique != false && max.value_or(2) > 1) {
    return SchemaError(path, "uniqueItems is not held to");
  }
  std::vector<std::string> first;
  Body body;
  if (const SchemaJson* list = FindKeyword(schema, "prefixItems")) {
    if (!list->is_array() || list->size() > kMaxPrefixItems) {
      return SchemaError(path, absl::StrCat("prefixItems is not a list of ",
                                            kMaxPrefixItems, " at most"));
    }
    for (size_t i = 0; i < list->size(); ++i) {
      ASSIGN_OR_RETURN(
          std::string rule,
          Rule((*list)[i], absl::StrCat(path, "/prefixItems/", i)));
      if (static_cast<int64_t>(i) < min.value_or(0)) {
        body.needs.front().push_back(rule);
      }
      first.push_back(std::move(rule));
    }
  }
  std::optional<std::string> rest;
  const SchemaJson* items = FindKeyword(schema, "items");
  const auto known = static_cast<int64_t>(first.size());
  if (items != nullptr && *items != false) {
    if (items->is_array()) {
      return SchemaError(path, "items is a list; prefixItems is meant");
    }
    ASSIGN_OR_RETURN(rest, Rule(*items, path + "/items"));
    if (min.value_or(0) > known) body.needs.front().push_back(*rest);
  } else if (items == nullptr && (first.empty() || min.value_or(0) > known)) {
    rest = "any";
  }
  auto expression = ArrayExpression(first, rest, min.value_or(0), max);
  if (!expression.ok()) return At(path, expression.status());
  body.expression = *std::move(expression);
  return body;
}

absl::StatusOr<std::vector<Member>> Writer::Members(const SchemaJson& schema,
                                                    const std::string& path) {
  std::vector<Member> members;
  if (const SchemaJson* properties = FindKeyword(schema, "properties")) {
    if (!properties->is_object()) {
      return SchemaError(path, "properties is not an object");
    }
    for (const auto& [name, value] : properties->items()) {
      ASSIGN_OR_RETURN(std::string rule,
                       Rule(value, absl::StrCat(path, "/properties/", name)));
      members.push_back({name, std::move(rule), false});
    }
  }
  const SchemaJson* required = FindKeyword(schema, "required");
  if (required == nullptr) return members;
  if (!required->is_array()) return SchemaError(path, "required is not a list");
  for (const SchemaJson& name : *required) {
    if (!name.is_string()) {
      return SchemaError(path, "required is not a list of names");
    }
    const auto member =
        std::find_if(members.begin(), members.end(),
                     [&](const Member& m) { return m.name == name; });
    if (member != members.end()) {
      member->required = true;
      continue;
    }
    // Its value is what additionalProperties says.
    const SchemaJson* others = FindKeyword(schema, "additionalProperties");
    if (others != nullptr && *others == false) {
      return SchemaError(path, absl::StrCat("required has ", name.dump(),
                                            ", which is not allowed"));
    }
    std::string rule = "any";
    if (others != nullptr) {
      ASSIGN_OR_RETURN(rule, Rule(*others, path + "/additionalProperties"));
    }
    members.push_back({name.get<std::string>(), std::move(rule), true});
  }
  return members;
}

absl::Status Writer::Others(const SchemaJson& schema, const std::string& path,
                            ObjectShape* shape) {
  const SchemaJson* patterns = FindKeyword(schema, "patternProperties");
  const SchemaJson* others = FindKeyword(schema, "additionalProperties");
  if (patterns != nullptr && *patterns != SchemaJson::object()) {
    if (!patterns->is_object() || patterns->size() > 1 ||
        !shape->members.empty() || (others != nullptr && *others != false)) {
      return SchemaError(path,
                         "patternProperties is held to only with one pattern, "
                         "without other members and additionalProperties");
    }
    auto key = StringExpression({patterns->begin().key()}, rules_);
    if (!key.ok()) return At(path, key.status());
    shape->other_key = *std::move(key);
    ASSIGN_OR_RETURN(shape->other_value,
                     Rule(*patterns->begin(), path + "/patternProperties"));
    return absl::OkStatus();
  }
  const bool has_members = !shape->members.empty();
  if (others == nullptr ? has_members || schema.contains("properties")
                        : *others == false) {
    return absl::OkStatus();
  }
  shape->other_value = "any";
  if (others != nullptr) {
    ASSIGN_OR_RETURN(shape->other_value,
                     Rule(*others, path + "/additionalProperties"));
  }
  std::vector<std::string> names;
  for (const Member& member : shape->members) names.push_back(member.name);
  auto key = names.empty() ? absl::StatusOr<std::string>("str")
                           : OtherKey(names, rules_);
  if (!key.ok()) return At(path, key.status());
  shape->other_key = *std::move(key);
  return absl::OkStatus();
}

// Members are not counted: only counts that hold anyway are taken, and one
// member at least of any kind.
absl::Status Writer::CheckMemberCounts(const SchemaJson& schema,
                                       const std::string& path,
                                       ObjectShape* shape) {
  ASSIGN_OR_RETURN(const auto min, ReadCount(schema, "minProperties", path));
  ASSIGN_OR_RETURN(const auto max, ReadCount(schema, "maxProperties", path));
  const auto required =
      std::count_if(shape->members.begin(), shape->members.end(),
                    [](const Member& m) { return m.required; });
  if (min && *min > required) {
    if (*min != 1 || !shape->members.empty() || !shape->other_key) {
      return SchemaError(path, "minProperties is not held to");
    }
    shape->one_at_least = true;
  }
  const auto most = static_cast<int64_t>(shape->members.size());
  if (max && (shape->other_key || *max < most)) {
    return SchemaError(path, "maxProperties is not held to");
  }
  return absl::OkStatus();
}

absl::StatusOr<Body> Writer::Object(const SchemaJson& schema,
                                    const std::string& path) {
  ObjectShape shape;
  ASSIGN_OR_RETURN(shape.members, Members(schema, path));
  RETURN_IF_ERROR(Others(schema, path, &shape));
  RETURN_IF_ERROR(CheckMemberCounts(schema, path, &shape));
  Body body;
  for (const Member& member : shape.members) {
    if (member.required) body.needs.front().push_back(member.value);
  }
  if (shape.one_at_least) body.needs.front().push_back(shape.other_value);
  auto expression = ObjectExpression(shape, rules_);
  if (!expression.ok()) return At(path, expression.status());
  body.expression = *std::move(expression);
  return body;
}

}  // namespace

absl::StatusOr<std::string> SchemaGrammar(absl::string_view schema) {
  if (schema.size() > kMaxSchemaBytes) {
    return NotSupported(absl::StrCat("the schema has ", schema.size(),
                                     " bytes, at most ", kMaxSchemaBytes));
  }
  if (common::NestsDeeperThan(schema, kMaxSchemaDepth)) {
    return NotSupported(
        absl::StrCat("the schema is nested deeper than ", kMaxSchemaDepth));
  }
  if (common::HasWiderObject(schema, kMaxSchemaMembers)) {
    return NotSupported(absl::StrCat("the schema has an object of more than ",
                                     kMaxSchemaMembers, " members"));
  }
  const SchemaJson root =
      SchemaJson::parse(schema, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) return NotSupported("the schema is not JSON");
  return Writer(root).Write();
}

absl::StatusOr<std::string> JsonObjectGrammar() {
  return GrammarRules().Text("obj");
}

}  // namespace onegrid::grammar
