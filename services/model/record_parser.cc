#include "services/model/record_parser.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace onegrid::model {
namespace {

using nlohmann::json;

// Bytes of an unknown role that a message shows.
constexpr size_t kShownRoleBytes = 32;

// The keys that make a format, the first named first when missing.
std::vector<const char*> RequiredKeys(DataFormat format) {
  switch (format) {
    case DataFormat::kPromptCompletion:
      return {"prompt", "completion"};
    case DataFormat::kMessages:
      return {"messages"};
    case DataFormat::kText:
      return {"text"};
    case DataFormat::kAlpaca:
      return {"instruction", "output"};
    case DataFormat::kShareGpt:
      return {"conversations"};
  }
  return {};
}

// Sets *out to the string at `key`, or returns what is wrong.
std::string ReadField(const json& object, const char* key, std::string* out) {
  const auto it = object.find(key);
  if (it == object.end()) return absl::StrCat("no \"", key, "\"");
  if (!it->is_string()) {
    return absl::StrCat("\"", key, "\" is not a string but ", it->type_name());
  }
  *out = it->get<std::string>();
  return "";
}

// As ReadField; *out is "" where the key is missing or null.
std::string ReadOptional(const json& object, const char* key,
                         std::string* out) {
  const auto it = object.find(key);
  if (it != object.end() && !it->is_null()) return ReadField(object, key, out);
  out->clear();
  return "";
}

std::string ParseRole(const std::string& name, Role* role) {
  if (name == "system") {
    *role = Role::kSystem;
  } else if (name == "user" || name == "human") {
    *role = Role::kUser;
  } else if (name == "assistant" || name == "gpt" || name == "model") {
    *role = Role::kAssistant;
  } else {
    const size_t shown = std::min(name.size(), kShownRoleBytes);
    return absl::StrCat("the role \"", absl::string_view(name).substr(0, shown),
                        "\" is not system, user or assistant");
  }
  return "";
}

// Appends a list of {role_key, text_key} objects.
std::string ParseTurns(const json& list, const char* key, const char* role_key,
                       const char* text_key, bool learn,
                       std::vector<Turn>* turns) {
  if (!list.is_array()) {
    return absl::StrCat("\"", key, "\" is not a list but ", list.type_name());
  }
  for (const json& item : list) {
    if (!item.is_object()) {
      return absl::StrCat("\"", key, "\" holds ", item.type_name(),
                          ", expected objects");
    }
    Turn turn;
    turn.learn = learn;
    std::string role;
    std::string problem = ReadField(item, role_key, &role);
    if (problem.empty()) problem = ParseRole(role, &turn.role);
    if (problem.empty()) problem = ReadField(item, text_key, &turn.text);
    if (!problem.empty()) return problem;
    turns->push_back(std::move(turn));
  }
  return "";
}

std::string ParsePair(const json& object, Record* record) {
  const json& prompt = object["prompt"];
  const json& completion = object["completion"];
  if (prompt.is_array() && completion.is_array()) {
    record->kind = Record::Kind::kChat;
    std::string problem = ParseTurns(prompt, "prompt", "role", "content",
                                     /*learn=*/false, &record->turns);
    if (problem.empty()) {
      problem = ParseTurns(completion, "completion", "role", "content",
                           /*learn=*/true, &record->turns);
    }
    return problem.empty() ? LearnProblem(record->turns) : problem;
  }
  record->kind = Record::Kind::kPair;
  std::string problem = ReadField(object, "prompt", &record->prompt);
  if (problem.empty()) {
    problem = ReadField(object, "completion", &record->completion);
  }
  if (problem.empty() && record->completion.empty()) {
    problem = "\"completion\" is empty";
  }
  return problem;
}

std::string ParseText(const json& object, Record* record) {
  record->kind = Record::Kind::kText;
  std::string problem = ReadField(object, "text", &record->text);
  if (problem.empty() && record->text.empty()) problem = "\"text\" is empty";
  return problem;
}

// The turns of earlier rounds, [[instruction, answer], ...].
std::string ParseHistory(const json& object, std::vector<Turn>* turns) {
  const auto it = object.find("history");
  if (it == object.end() || it->is_null()) return "";
  if (!it->is_array()) {
    return absl::StrCat("\"history\" is not a list but ", it->type_name());
  }
  for (const json& round : *it) {
    if (!round.is_array() || round.size() != 2 || !round[0].is_string() ||
        !round[1].is_string()) {
      return "\"history\" holds something other than pairs of strings";
    }
    turns->push_back({Role::kUser, round[0].get<std::string>()});
    turns->push_back({Role::kAssistant, round[1].get<std::string>()});
  }
  return "";
}

std::string ParseAlpaca(const json& object, Record* record) {
  record->kind = Record::Kind::kChat;
  std::string system, instruction, input, output;
  std::string problem = ReadField(object, "instruction", &instruction);
  if (problem.empty()) problem = ReadField(object, "output", &output);
  if (problem.empty()) problem = ReadOptional(object, "input", &input);
  if (problem.empty()) problem = ReadOptional(object, "system", &system);
  if (!system.empty()) record->turns.push_back({Role::kSystem, system});
  if (problem.empty()) problem = ParseHistory(object, &record->turns);
  if (!problem.empty()) return problem;
  if (!input.empty()) absl::StrAppend(&instruction, "\n", input);
  record->turns.push_back({Role::kUser, std::move(instruction)});
  record->turns.push_back({Role::kAssistant, std::move(output)});
  return LearnProblem(record->turns);
}

std::string ParseShareGpt(const json& object, Record* record) {
  record->kind = Record::Kind::kChat;
  std::string system;
  std::string problem = ReadOptional(object, "system", &system);
  if (!system.empty()) record->turns.push_back({Role::kSystem, system});
  if (problem.empty()) {
    problem = ParseTurns(object["conversations"], "conversations", "from",
                         "value", /*learn=*/true, &record->turns);
  }
  return problem.empty() ? LearnProblem(record->turns) : problem;
}

}  // namespace

std::optional<DataFormat> DetectFormat(const nlohmann::json& object) {
  for (const DataFormat format :
       {DataFormat::kPromptCompletion, DataFormat::kMessages,
        DataFormat::kShareGpt, DataFormat::kAlpaca, DataFormat::kText}) {
    if (MissingKeys(object, format).empty()) return format;
  }
  if (object.contains("prompt") || object.contains("completion")) {
    return DataFormat::kPromptCompletion;
  }
  return std::nullopt;
}

std::string NoFormatProblem() {
  return "no known format: expected \"prompt\" and \"completion\", "
         "\"messages\", \"conversations\", \"instruction\" and \"output\", or "
         "\"text\"";
}

std::string MissingKeys(const nlohmann::json& object, DataFormat format) {
  for (const char* key : RequiredKeys(format)) {
    if (!object.contains(key)) return absl::StrCat("no \"", key, "\"");
  }
  return "";
}

std::string ParseRecord(const nlohmann::json& object, DataFormat format,
                        Record* record) {
  switch (format) {
    case DataFormat::kPromptCompletion:
      return ParsePair(object, record);
    case DataFormat::kMessages:
      record->kind = Record::Kind::kChat;
      if (std::string problem =
              ParseTurns(object["messages"], "messages", "role", "content",
                         /*learn=*/true, &record->turns);
          !problem.empty()) {
        return problem;
      }
      return LearnProblem(record->turns);
    case DataFormat::kText:
      return ParseText(object, record);
    case DataFormat::kAlpaca:
      return ParseAlpaca(object, record);
    case DataFormat::kShareGpt:
      return ParseShareGpt(object, record);
  }
  return "";
}

}  // namespace onegrid::model
