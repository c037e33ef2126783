// Prints the token ids of lines, for comparisons with other tokenizers.
//
//   tokenize_tool --gguf=FILE [--add_bos] [--parse_control] < lines
//   tokenize_tool --gguf=FILE --chat < lines
//
// Each input line is a JSON string, or with --chat {"messages": [{"role",
// "content"}, ...], "open_answer": bool}; each output line is a JSON array of
// ids. Exit: 0; 1 for a bad file; 2 for a bad input line.
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/model/chat_template.h"
#include "services/model/gguf_reader.h"
#include "services/model/tokenizer.h"

ABSL_FLAG(std::string, gguf, "", "GGUF file with the tokenizer.");
ABSL_FLAG(bool, add_bos, false, "Put the begin-of-sequence token first.");
ABSL_FLAG(bool, parse_control, false,
          "Turn the texts of control tokens into those tokens.");
ABSL_FLAG(bool, chat, false, "Read conversations; apply the chat template.");

namespace {

using onegrid::model::Role;
using onegrid::model::Turn;

// False for a bad line.
bool EncodeChat(const onegrid::model::ChatTemplate& chat_template,
                const nlohmann::json& line, std::vector<int32_t>* ids) {
  if (!line.is_object() || !line.contains("messages")) return false;
  std::vector<Turn> turns;
  for (const nlohmann::json& message : line["messages"]) {
    const std::string role = message.value("role", "");
    turns.push_back({role == "system"      ? Role::kSystem
                     : role == "assistant" ? Role::kAssistant
                                           : Role::kUser,
                     message.value("content", "")});
  }
  if (!onegrid::model::RenderProblem(turns).empty()) return false;
  *ids = chat_template.Encode(turns, line.value("open_answer", false)).tokens;
  return true;
}

int Run() {
  const auto file = onegrid::model::GgufFile::Open(absl::GetFlag(FLAGS_gguf));
  if (!file.ok()) {
    std::fprintf(stderr, "%s\n", file.status().ToString().c_str());
    return 1;
  }
  const auto tokenizer = onegrid::model::Tokenizer::FromGguf(**file);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  const bool add_bos = absl::GetFlag(FLAGS_add_bos);
  const bool parse_control = absl::GetFlag(FLAGS_parse_control);
  const auto chat_template = onegrid::model::ChatTemplate::Create(**tokenizer);
  const bool chat = absl::GetFlag(FLAGS_chat);
  if (chat && !chat_template.ok()) {
    std::fprintf(stderr, "%s\n", chat_template.status().ToString().c_str());
    return 1;
  }
  std::string line;
  for (int number = 1; std::getline(std::cin, line); ++number) {
    const auto text = nlohmann::json::parse(line, nullptr, false);
    std::vector<int32_t> ids;
    if (chat ? !EncodeChat(*chat_template, text, &ids) : !text.is_string()) {
      std::fprintf(stderr, "line %d: expected a %s\n", number,
                   chat ? "conversation" : "JSON string");
      return 2;
    }
    if (!chat) {
      ids =
          (*tokenizer)->Encode(text.get<std::string>(), add_bos, parse_control);
    }
    std::cout << "[" << absl::StrJoin(ids, ",") << "]\n";
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Prints the token ids of JSON strings read from standard input.");
  absl::ParseCommandLine(argc, argv);
  return Run();
}
