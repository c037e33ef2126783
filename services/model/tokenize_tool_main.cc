// Prints the token ids of lines, for comparisons with other tokenizers.
//
//   tokenize_tool --gguf=FILE [--add_bos] [--parse_control] < lines
//
// Each input line is a JSON string; each output line is a JSON array of ids.
// Exit: 0; 1 for a bad file; 2 for an input line that is not a JSON string.
#include <cstdio>
#include <iostream>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/model/gguf_reader.h"
#include "services/model/tokenizer.h"

ABSL_FLAG(std::string, gguf, "", "GGUF file with the tokenizer.");
ABSL_FLAG(bool, add_bos, false, "Put the begin-of-sequence token first.");
ABSL_FLAG(bool, parse_control, false,
          "Turn the texts of control tokens into those tokens.");

namespace {

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
  std::string line;
  for (int number = 1; std::getline(std::cin, line); ++number) {
    const auto text = nlohmann::json::parse(line, nullptr, false);
    if (!text.is_string()) {
      std::fprintf(stderr, "line %d: expected a JSON string\n", number);
      return 2;
    }
    const auto ids =
        (*tokenizer)->Encode(text.get<std::string>(), add_bos, parse_control);
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
