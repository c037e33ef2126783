#include "services/model/chat_tools.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/json_depth.h"
#include "services/model/python_number.h"

namespace onegrid::model {
namespace {

using Json = nlohmann::ordered_json;
using Entry = std::pair<std::string, const Json*>;

constexpr char kQuote[] = "<|\"|>";
// What a schema says of itself where it has no list of properties.
constexpr absl::string_view kSchemaWords[] = {
    "description", "type", "properties", "required", "nullable"};

bool IsSchemaWord(absl::string_view key) {
  return std::find(std::begin(kSchemaWords), std::end(kSchemaWords), key) !=
         std::end(kSchemaWords);
}

// Null too if absent.
const Json& Member(const Json& object, const char* key) {
  static const Json* const kNull = new Json();
  const auto found = object.find(key);
  return found == object.end() ? *kNull : *found;
}

// What Jinja takes for true.
bool IsTrue(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  return !value.empty();
}

std::vector<Entry> Sorted(const Json& object) {
  std::vector<Entry> entries;
  for (const auto& [key, value] : object.items()) {
    entries.emplace_back(key, &value);
  }
  std::stable_sort(
      entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
        return absl::AsciiStrToLower(a.first) < absl::AsciiStrToLower(b.first);
      });
  return entries;
}

// Writes values, and says what cannot be written.
class ToolWriter {
 public:
  ToolWriter(bool drops_schema_words, ChatPieceWriter& writer)
      : drops_schema_words_(drops_schema_words), writer_(writer) {}

  void Declaration(const Json& function);
  void Value(const Json& value, bool quotes_keys);
  // Separated by commas, without the braces.
  void Members(const Json& object, bool quotes_keys);
  void Quoted(absl::string_view text) {
    writer_.Control(kQuote);
    writer_.Said(text);
    writer_.Control(kQuote);
  }
  const std::string& problem() const { return problem_; }

 private:
  void Fail(absl::string_view where, absl::string_view what) {
    if (problem_.empty()) problem_ = absl::StrCat(where, " ", what);
  }
  void Comma(bool* first) {
    if (!*first) writer_.Fixed(",");
    *first = false;
  }
  // A field that may be absent. What Python would print of other values helps
  // nobody.
  std::string Text(const Json& object, const char* key);
  std::string Type(const Json& schema);
  void Names(const Json& names);
  void Properties(const Json& properties, bool drops);
  void Property(const Json& schema);
  void Items(const Json& items);
  void ObjectParts(const Json& schema, bool* first);

  const bool drops_schema_words_;
  ChatPieceWriter& writer_;
  std::string problem_;
};

void ToolWriter::Value(const Json& value, bool quotes_keys) {
  if (value.is_string()) return Quoted(value.get_ref<const std::string&>());
  if (value.is_object()) {
    writer_.Fixed("{");
    Members(value, quotes_keys);
    return writer_.Fixed("}");
  }
  if (value.is_array()) {
    writer_.Fixed("[");
    bool first = true;
    for (const Json& element : value) {
      Comma(&first);
      Value(element, quotes_keys);
    }
    return writer_.Fixed("]");
  }
  if (value.is_boolean()) {
    return writer_.Fixed(value.get<bool>() ? "true" : "false");
  }
  if (value.is_number_float()) {
    return writer_.Fixed(PythonFloat(value.get<double>()));
  }
  writer_.Fixed(value.is_null() ? "None" : value.dump());
}

void ToolWriter::Members(const Json& object, bool quotes_keys) {
  bool first = true;
  for (const auto& [key, value] : Sorted(object)) {
    Comma(&first);
    if (quotes_keys) {
      Quoted(key);
    } else {
      writer_.Said(key);
    }
    writer_.Fixed(":");
    Value(*value, quotes_keys);
  }
}

std::string ToolWriter::Text(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) return "";
  if (found->is_null()) return "None";
  if (found->is_string()) return found->get<std::string>();
  Fail(key, "is not a string");
  return "";
}

std::string ToolWriter::Type(const Json& schema) {
  const Json& type = Member(schema, "type");
  if (!type.is_array()) return absl::AsciiStrToUpper(Text(schema, "type"));
  // As Python prints a list.
  std::string list;
  for (const Json& element : type) {
    const std::string name =
        element.is_string() ? element.get<std::string>() : "";
    if (name.empty() ||
        !std::all_of(name.begin(), name.end(), absl::ascii_isalpha)) {
      Fail("type", "is neither the name of a type nor a list of such names");
      return "";
    }
    absl::StrAppend(&list, list.empty() ? "" : ", ", "'",
                    absl::AsciiStrToUpper(name), "'");
  }
  return absl::StrCat("[", list, "]");
}

void ToolWriter::Names(const Json& names) {
  writer_.Fixed("required:[");
  bool first = true;
  if (!names.is_array()) Fail("required", "is not a list");
  for (const Json& name : names) {
    if (!name.is_string()) {
      return Fail("required", "is not a list of strings");
    }
    Comma(&first);
    Quoted(name.get_ref<const std::string&>());
  }
  writer_.Fixed("]");
}

void ToolWriter::Properties(const Json& properties, bool drops) {
  bool first = true;
  for (const auto& [key, schema] : Sorted(properties)) {
    if (drops && IsSchemaWord(key)) continue;
    Comma(&first);
    writer_.Said(key);
    writer_.Fixed(":{");
    if (!schema->is_object()) {
      return Fail("properties", "has a value that is not an object");
    }
    Property(*schema);
  }
}

void ToolWriter::Property(const Json& schema) {
  bool first = true;
  if (IsTrue(Member(schema, "description"))) {
    first = false;
    writer_.Fixed("description:");
    Quoted(Text(schema, "description"));
  }
  const std::string type = Type(schema);
  if (const Json& values = Member(schema, "enum");
      type == "STRING" && IsTrue(values)) {
    Comma(&first);
    writer_.Fixed("enum:");
    if (!values.is_array()) Fail("enum", "is not a list");
    Value(values, /*quotes_keys=*/true);
  }
  if (const Json& items = Member(schema, "items");
      type == "ARRAY" && items.is_object() && !items.empty()) {
    Comma(&first);
    Items(items);
  }
  if (IsTrue(Member(schema, "nullable"))) {
    Comma(&first);
    writer_.Fixed("nullable:true");
  }
  if (type == "OBJECT") ObjectParts(schema, &first);
  Comma(&first);
  writer_.Fixed("type:");
  Quoted(type);
  writer_.Fixed("}");
}

void ToolWriter::Items(const Json& items) {
  writer_.Fixed("items:{");
  bool first = true;
  for (const auto& [key, value] : Sorted(items)) {
    if (value->is_null()) continue;
    Comma(&first);
    if (key == "properties") {
      writer_.Fixed("properties:{");
      if (value->is_object()) Properties(*value, drops_schema_words_);
      writer_.Fixed("}");
    } else if (key == "required") {
      Names(*value);
    } else if (key == "type" && value->is_array()) {
      Json names = *value;
      for (Json& name : names) {
        if (!name.is_string()) return Fail("type", "is not a list of strings");
        name = absl::AsciiStrToUpper(name.get<std::string>());
      }
      writer_.Fixed("type:");
      Value(names, /*quotes_keys=*/true);
    } else if (key == "type") {
      writer_.Fixed("type:");
      Quoted(absl::AsciiStrToUpper(Text(items, "type")));
    } else {
      writer_.Said(key);
      writer_.Fixed(":");
      Value(*value, /*quotes_keys=*/true);
    }
  }
  writer_.Fixed("}");
}

void ToolWriter::ObjectParts(const Json& schema, bool* first) {
  Comma(first);
  writer_.Fixed("properties:{");
  if (const Json& properties = Member(schema, "properties");
      properties.is_object()) {
    Properties(properties, drops_schema_words_);
  } else {
    Properties(schema, /*drops=*/true);
  }
  writer_.Fixed("}");
  const Json& required = Member(schema, "required");
  if (!IsTrue(required)) return;
  Comma(first);
  Names(required);
}

void ToolWriter::Declaration(const Json& function) {
  if (!function.is_object()) return Fail("function", "is not an object");
  if (!Member(function, "name").is_string()) {
    return Fail("name", "is missing or not a string");
  }
  writer_.Fixed("declaration:");
  writer_.Said(Text(function, "name"));
  writer_.Fixed("{description:");
  Quoted(Text(function, "description"));
  const Json& parameters = Member(function, "parameters");
  if (IsTrue(parameters)) {
    if (!parameters.is_object()) return Fail("parameters", "is not an object");
    writer_.Fixed(",parameters:{");
    if (const Json& properties = Member(parameters, "properties");
        IsTrue(properties)) {
      if (!properties.is_object()) {
        return Fail("properties", "is not an object");
      }
      writer_.Fixed("properties:{");
      Properties(properties, drops_schema_words_);
      writer_.Fixed("},");
    }
    if (IsTrue(Member(parameters, "required"))) {
      Names(Member(parameters, "required"));
      writer_.Fixed(",");
    }
    // Without a type the brace stays open, as in the templates.
    if (IsTrue(Member(parameters, "type"))) {
      writer_.Fixed("type:");
      Quoted(Type(parameters));
      writer_.Fixed("}");
    }
  }
  if (function.contains("response")) {
    return Fail("response", "is not supported");
  }
  writer_.Fixed("}");
}

constexpr int kDepthMax = 64;

// Discarded if it is not JSON, nested deeper than kDepthMax or with an object
// of more than kOrderedMembersMax members.
Json Parsed(const std::string& text) {
  if (common::NestsDeeperThan(text, kDepthMax) ||
      common::HasWiderObject(text, common::kOrderedMembersMax)) {
    return Json(Json::value_t::discarded);
  }
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace

std::string DeclarationProblem(const std::string& function) {
  ChatPieceWriter writer(/*cuts_marks=*/true);
  ToolWriter tool(/*drops_schema_words=*/false, writer);
  tool.Declaration(Parsed(function));
  return tool.problem();
}

void WriteDeclaration(const std::string& function, bool drops_schema_words,
                      ChatPieceWriter& writer) {
  writer.Control("<|tool>");
  ToolWriter(drops_schema_words, writer).Declaration(Parsed(function));
  writer.Control("<tool|>");
}

std::string ArgumentsProblem(const std::string& arguments) {
  if (common::NestsDeeperThan(arguments, kDepthMax)) {
    return absl::StrCat("is nested deeper than ", kDepthMax);
  }
  if (common::HasWiderObject(arguments, common::kOrderedMembersMax)) {
    return absl::StrCat("has an object of more than ",
                        common::kOrderedMembersMax, " members");
  }
  return Parsed(arguments).is_object() ? "" : "is not a JSON object";
}

void WriteToolCall(const ToolCall& call, ChatPieceWriter& writer) {
  writer.Control("<|tool_call>");
  writer.Fixed("call:");
  writer.Said(call.name);
  writer.Fixed("{");
  ToolWriter(/*drops_schema_words=*/false, writer)
      .Members(Parsed(call.arguments), /*quotes_keys=*/false);
  writer.Fixed("}");
  writer.Control("<tool_call|>");
}

void WriteToolResult(absl::string_view name, absl::string_view result,
                     ChatPieceWriter& writer) {
  writer.Control("<|tool_response>");
  writer.Fixed("response:");
  writer.Said(name);
  writer.Fixed("{value:");
  ToolWriter(/*drops_schema_words=*/false, writer).Quoted(result);
  writer.Fixed("}");
  writer.Control("<tool_response|>");
}

}  // namespace onegrid::model
