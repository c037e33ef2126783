#include "services/gateway/openai_messages.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/json_depth.h"
#include "services/gateway/openai_request.h"
#include "services/model/chat_tools.h"

namespace onegrid::gateway {
namespace {

using nlohmann::json;

// The member, unless it is absent or null.
const json* Find(const json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

// A string that may be absent.
void ReadString(const json& object, const char* name, const std::string& param,
                JsonFields& fields, std::string* text) {
  const json* value = Find(object, name);
  if (value == nullptr) return;
  if (!value->is_string()) {
    return fields.Fail(
        InvalidField(absl::StrCat(param, ".", name),
                     absl::StrCat(param, ".", name, " is a ",
                                  value->type_name(), ", expected a string")));
  }
  *text = value->get<std::string>();
}

// The text of a message's `content`: a string, or a list of text parts.
void ReadContent(const json& content, const std::string& param,
                 JsonFields& fields, std::string* text) {
  if (content.is_string()) {
    *text = content.get<std::string>();
    return;
  }
  if (!content.is_array()) {
    return fields.Fail(InvalidField(
        param, absl::StrCat(param, " is a ", content.type_name(),
                            ", expected a string or a list of parts")));
  }
  for (size_t i = 0; i < content.size(); ++i) {
    const json& part = content[i];
    const std::string name = absl::StrCat(param, "[", i, "]");
    if (!part.is_object() || !part.contains("type") ||
        !part["type"].is_string()) {
      return fields.Fail(
          InvalidField(name, absl::StrCat(name, " is not a part with a type")));
    }
    const std::string type = part["type"];
    if (type != "text") {
      return fields.Fail(UnsupportedField(
          name, absl::StrCat("parts of type ", type,
                             " are not supported, the model reads text")));
    }
    if (!part.contains("text") || !part["text"].is_string()) {
      return fields.Fail(
          InvalidField(name, absl::StrCat(name, " has no text")));
    }
    *text += part["text"].get_ref<const std::string&>();
  }
}

void ReadCall(const json& call, const std::string& param, JsonFields& fields,
              model::ToolCall* out) {
  const json* function = call.is_object() ? Find(call, "function") : nullptr;
  if (function == nullptr || !function->is_object() ||
      call.value("type", json("function")) != "function") {
    return fields.Fail(InvalidField(
        param, absl::StrCat(param, " is not a call of a function")));
  }
  ReadString(call, "id", param, fields, &out->id);
  ReadString(*function, "name", param + ".function", fields, &out->name);
  std::string arguments;
  ReadString(*function, "arguments", param + ".function", fields, &arguments);
  if (out->name.empty()) {
    fields.Fail(InvalidField(param + ".function.name",
                             absl::StrCat(param, " names no function")));
  }
  // What clients send of a function without parameters.
  if (!arguments.empty()) out->arguments = std::move(arguments);
  const std::string problem = model::ArgumentsProblem(out->arguments);
  if (problem.empty()) return;
  fields.Fail(
      InvalidField(param + ".function.arguments",
                   absl::StrCat(param, ".function.arguments ", problem)));
}

void ReadCalls(const json& message, const std::string& param,
               JsonFields& fields, model::Turn* turn) {
  const json* calls = Find(message, "tool_calls");
  if (calls == nullptr) return;
  const std::string name = param + ".tool_calls";
  if (!calls->is_array()) {
    return fields.Fail(InvalidField(name, name + " is not a list"));
  }
  if (!calls->empty() && turn->role != model::Role::kAssistant) {
    return fields.Fail(
        InvalidField(name, name + " is not of an assistant message"));
  }
  if (calls->size() > kMaxTools) {
    return fields.Fail(InvalidField(
        name, absl::StrCat(name, " has ", calls->size(),
                           " calls, expected at most ", kMaxTools)));
  }
  for (size_t i = 0; i < calls->size(); ++i) {
    turn->calls.emplace_back();
    ReadCall((*calls)[i], absl::StrCat(name, "[", i, "]"), fields,
             &turn->calls.back());
  }
}

// Of a message of a tool, by the call that it answers.
void ReadToolName(const json& message, const std::string& param,
                  const std::vector<model::Turn>& before, JsonFields& fields,
                  model::Turn* turn) {
  std::string id;
  ReadString(message, "tool_call_id", param, fields, &id);
  ReadString(message, "name", param, fields, &turn->tool_name);
  std::string called = model::CalledTool(before, id);
  // A client that sends no ids names the tool.
  if (!id.empty() || !called.empty()) turn->tool_name = std::move(called);
  if (!turn->tool_name.empty()) return;
  fields.Fail(
      InvalidField(param + ".tool_call_id",
                   absl::StrCat(param,
                                ".tool_call_id is the id of no call of the "
                                "assistant message before")));
}

void ReadMessage(const json& message, const std::string& param,
                 const std::vector<model::Turn>& before, JsonFields& fields,
                 model::Turn* turn) {
  if (!message.is_object() || !message.contains("role") ||
      !message["role"].is_string()) {
    return fields.Fail(InvalidField(
        param, absl::StrCat(param, " is not an object with a role")));
  }
  const std::string role = message["role"];
  if (role == "system" || role == "developer") {
    turn->role = model::Role::kSystem;
  } else if (role == "user") {
    turn->role = model::Role::kUser;
  } else if (role == "assistant") {
    turn->role = model::Role::kAssistant;
  } else if (role == "tool") {
    turn->role = model::Role::kTool;
    ReadToolName(message, param, before, fields, turn);
  } else {
    return fields.Fail(UnsupportedField(
        param + ".role",
        absl::StrCat("the role ", role,
                     " is not supported, expected system, user, assistant or "
                     "tool")));
  }
  ReadCalls(message, param, fields, turn);
  if (turn->role == model::Role::kAssistant) {
    ReadString(message, "reasoning", param, fields, &turn->reasoning);
    ReadString(message, "reasoning_content", param, fields, &turn->reasoning);
  }
  const json* content = Find(message, "content");
  if (content != nullptr) {
    ReadContent(*content, param + ".content", fields, &turn->text);
  } else if (turn->calls.empty()) {
    fields.Fail(InvalidField(param + ".content",
                             absl::StrCat(param, " has no content")));
  }
}

}  // namespace

void ReadMessages(JsonFields& fields, std::vector<model::Turn>* turns) {
  const json* messages = fields.Find("messages");
  if (messages == nullptr || !messages->is_array()) {
    return fields.Fail(InvalidField(
        "messages", messages == nullptr ? "messages is missing"
                                        : "messages is not a list"));
  }
  size_t results = 0;  // one after the other
  for (size_t i = 0; i < messages->size(); ++i) {
    model::Turn turn;
    ReadMessage((*messages)[i], absl::StrCat("messages[", i, "]"), *turns,
                fields, &turn);
    if (fields.error()) return;
    results = turn.role == model::Role::kTool ? results + 1 : 0;
    if (results > kMaxTools) {
      return fields.Fail(InvalidField(
          "messages", absl::StrCat("messages has more than ", kMaxTools,
                                   " results of tools one after the other")));
    }
    turns->push_back(std::move(turn));
  }
  const std::string problem = model::RenderProblem(*turns);
  if (!problem.empty()) {
    return fields.Fail(InvalidField("messages", problem));
  }
  if (turns->back().role == model::Role::kAssistant) {
    fields.Fail(InvalidField("messages",
                             "the last message is the assistant's: there is "
                             "nothing to answer"));
  }
}

void ReadTools(JsonFields& fields, absl::string_view body,
               std::vector<std::string>* tools) {
  const json* list = fields.Find("tools");
  if (list == nullptr) return;
  if (!list->is_array() || list->size() > kMaxTools) {
    return fields.Fail(InvalidField(
        "tools", absl::StrCat("tools is not a list of at most ", kMaxTools)));
  }
  const json* choice = fields.Find("tool_choice");
  if (list->empty() || (choice != nullptr && *choice == "none")) return;
  if (common::HasWiderObject(body, common::kOrderedMembersMax)) {
    return fields.Fail(InvalidField(
        "tools",
        absl::StrCat("a request with tools has an object of more than ",
                     common::kOrderedMembersMax, " members")));
  }
  const auto ordered =
      nlohmann::ordered_json::parse(body, nullptr, /*allow_exceptions=*/false);
  for (const auto& tool : ordered["tools"]) {
    const std::string name = absl::StrCat("tools[", tools->size(), "]");
    if (!tool.is_object() || !tool.contains("function") ||
        !tool.contains("type") || tool["type"] != "function") {
      return fields.Fail(UnsupportedField(
          name, absl::StrCat(name,
                             " is not a function, the only type of "
                             "tools that is supported")));
    }
    tools->push_back(tool["function"].dump());
    const std::string problem = model::DeclarationProblem(tools->back());
    if (problem.empty()) continue;
    return fields.Fail(InvalidField(
        name,
        absl::StrCat(name, " cannot be written for the model: ", problem)));
  }
}

}  // namespace onegrid::gateway
