// Prints conversations as a chat template renders them, for comparisons with
// Jinja.
//
//   chat_text_tool --template=FILE < lines
//
// FILE is the template, one that is known (chat_format.h). Each input line is
// {"messages": [{"role", "content"}, ...], "open_answer", "enable_thinking",
// "tools"}, tools, calls (with arguments that are objects) and results as in
// the OpenAI API; each output line the text as a JSON string. Exit: 0; 1 for a
// bad file or a template that is not known; 2 for a bad input line.
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "nlohmann/json.hpp"
#include "services/common/files.h"
#include "services/model/chat_format.h"
#include "services/model/chat_template.h"
#include "services/model/chat_tools.h"
#include "services/model/chat_turns.h"

ABSL_FLAG(std::string, template, "", "The chat template, Jinja.");

namespace {

using onegrid::model::ChatFormat;
using onegrid::model::ChatOptions;
using onegrid::model::Role;
using onegrid::model::Turn;
using Json = nlohmann::ordered_json;

Turn TurnOf(const Json& message) {
  Turn turn;
  const std::string role = message.value("role", "");
  turn.role = role == "system" ? Role::kSystem
              : role == "user" ? Role::kUser
              : role == "tool" ? Role::kTool
                               : Role::kAssistant;
  turn.text = message.value("content", "");
  turn.reasoning = message.value("reasoning_content", "");
  if (!message.contains("tool_calls")) return turn;
  for (const Json& call : message["tool_calls"]) {
    const Json& function = call["function"];
    turn.calls.push_back({call.value("id", ""), function.value("name", ""),
                          function["arguments"].dump()});
  }
  return turn;
}

// The text of a line; none for a bad one.
std::optional<std::string> TextOf(const Json& line, ChatFormat format) {
  if (!line.is_object() || !line.contains("messages")) return std::nullopt;
  std::vector<Turn> turns;
  for (const Json& message : line["messages"]) {
    if (!message.is_object()) return std::nullopt;
    Turn turn = TurnOf(message);
    if (turn.role == Role::kTool) {
      turn.tool_name =
          onegrid::model::CalledTool(turns, message.value("tool_call_id", ""));
    }
    turns.push_back(std::move(turn));
  }
  if (!onegrid::model::RenderProblem(turns).empty()) return std::nullopt;
  std::vector<std::string> tools;
  if (line.contains("tools")) {
    for (const Json& tool : line["tools"]) {
      tools.push_back(tool["function"].dump());
      if (!onegrid::model::DeclarationProblem(tools.back()).empty()) {
        return std::nullopt;
      }
    }
  }
  const ChatOptions options = {format, line.value("open_answer", false),
                               line.value("enable_thinking", false), tools};
  return onegrid::model::ChatTemplate::Text(turns, options);
}

int Run() {
  const auto jinja = onegrid::common::ReadFile(absl::GetFlag(FLAGS_template));
  if (!jinja.ok()) {
    std::fprintf(stderr, "%s\n", jinja.status().ToString().c_str());
    return 1;
  }
  const auto format = onegrid::model::FormatOfTemplate(*jinja);
  if (!format.has_value()) {
    std::fprintf(stderr, "the template is not known\n");
    return 1;
  }
  std::string line;
  for (int number = 1; std::getline(std::cin, line); ++number) {
    std::optional<std::string> text;
    const auto object = Json::parse(line, nullptr, false);
    if (!object.is_discarded()) text = TextOf(object, *format);
    if (!text.has_value()) {
      std::fprintf(stderr, "line %d: not what the usage says\n", number);
      return 2;
    }
    std::printf("%s\n", Json(*text).dump().c_str());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Prints conversations read from standard input as a template renders "
      "them.");
  absl::ParseCommandLine(argc, argv);
  return Run();
}
