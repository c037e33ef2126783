#include "services/gateway/structure_fields.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/json_depth.h"

namespace onegrid::gateway {
namespace {

using OrderedJson = nlohmann::ordered_json;

class Reader {
 public:
  Reader(JsonFields& fields, std::optional<v1::Structure>* structure)
      : fields_(fields), structure_(structure) {}

  void ReadResponseFormat(const OrderedJson& format) {
    constexpr char kName[] = "response_format";
    if (!format.is_object() || !format.contains("type") ||
        !format["type"].is_string()) {
      return Invalid(kName, "is not an object with a type");
    }
    const std::string type = format["type"];
    if (type == "text") return;
    if (type == "json_object") {
      if (v1::Structure* structure = Begin(kName)) {
        structure->set_json_object(true);
      }
      return;
    }
    if (type != "json_schema") {
      return fields_.Fail(UnsupportedField(
          kName, absl::StrCat("response_format of type ", type,
                              " is not supported, only text, json_object and "
                              "json_schema")));
    }
    const bool has_schema = format.contains("json_schema") &&
                            format["json_schema"].is_object() &&
                            format["json_schema"].contains("schema");
    if (!has_schema) return Invalid(kName, "has no json_schema.schema");
    ReadSchema(kName, format["json_schema"]["schema"]);
  }

  // A schema, as JSON or, as other servers take it, as its text.
  void ReadSchema(const char* name, const OrderedJson& schema) {
    v1::Structure* structure = Begin(name);
    if (structure == nullptr) return;
    structure->set_json_schema(schema.is_string() ? schema.get<std::string>()
                                                  : schema.dump());
  }

  void ReadRegex(const char* name, const OrderedJson& regex) {
    if (!regex.is_string()) return Invalid(name, "is not a string");
    v1::Structure* structure = Begin(name);
    if (structure != nullptr) structure->set_regex(regex.get<std::string>());
  }

  void ReadChoice(const char* name, const OrderedJson& choices) {
    if (!choices.is_array()) return Invalid(name, "is not a list of strings");
    v1::Structure* structure = Begin(name);
    if (structure == nullptr) return;
    structure->mutable_choices();
    for (const OrderedJson& choice : choices) {
      if (!choice.is_string()) return Invalid(name, "is not a list of strings");
      structure->mutable_choices()->add_texts(choice.get<std::string>());
    }
  }

  void ReadStructuredOutputs(const OrderedJson& outputs) {
    constexpr char kName[] = "structured_outputs";
    if (!outputs.is_object()) return Invalid(kName, "is not an object");
    for (const auto& [kind, value] : outputs.items()) {
      if (value.is_null() || value == false) continue;
      if (kind == "json") {
        ReadSchema(kName, value);
      } else if (kind == "regex") {
        ReadRegex(kName, value);
      } else if (kind == "choice") {
        ReadChoice(kName, value);
      } else if (kind == "json_object" && value == true) {
        if (v1::Structure* structure = Begin(kName)) {
          structure->set_json_object(true);
        }
      } else {
        fields_.Fail(UnsupportedField(
            kName, absl::StrCat("structured_outputs.", kind,
                                " is not supported, only json, json_object, "
                                "regex and choice")));
      }
    }
  }

 private:
  void Invalid(const char* name, absl::string_view problem) {
    fields_.Fail(InvalidField(name, absl::StrCat(name, " ", problem)));
  }

  // The structure to fill; null, with an error, if there is one already.
  v1::Structure* Begin(const char* name) {
    if (structure_->has_value()) {
      Invalid(name, "says what the answer has to be, but not it alone does");
      return nullptr;
    }
    return &structure_->emplace();
  }

  JsonFields& fields_;
  std::optional<v1::Structure>* structure_;
};

}  // namespace

void ReadStructure(JsonFields& fields, absl::string_view body,
                   std::optional<v1::Structure>* structure) {
  constexpr const char* kNames[] = {"response_format", "guided_json",
                                    "guided_regex", "guided_choice",
                                    "structured_outputs"};
  const char* first = nullptr;
  for (const char* name : kNames) {
    if (first == nullptr && fields.Find(name) != nullptr) first = name;
  }
  if (first == nullptr || fields.error()) return;
  if (common::HasWiderObject(body, common::kOrderedMembersMax)) {
    return fields.Fail(InvalidField(
        first,
        absl::StrCat("a request with ", first, " has an object of more than ",
                     common::kOrderedMembersMax, " members")));
  }
  const auto ordered =
      OrderedJson::parse(body, nullptr, /*allow_exceptions=*/false);
  Reader reader(fields, structure);
  for (const char* name : kNames) {
    if (fields.Find(name) == nullptr) continue;
    const absl::string_view field = name;
    const OrderedJson& value = ordered[name];
    if (field == "response_format") {
      reader.ReadResponseFormat(value);
    } else if (field == "guided_json") {
      reader.ReadSchema(name, value);
    } else if (field == "guided_regex") {
      reader.ReadRegex(name, value);
    } else if (field == "guided_choice") {
      reader.ReadChoice(name, value);
    } else {
      reader.ReadStructuredOutputs(value);
    }
  }
}

}  // namespace onegrid::gateway
