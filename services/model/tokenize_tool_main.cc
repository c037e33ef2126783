// Prints the token ids of lines, for comparisons with other tokenizers.
//
//   tokenize_tool --gguf=FILE [--add_bos] [--parse_control] < lines
//   tokenize_tool --gguf=FILE --chat < lines
//   tokenize_tool --gguf=FILE --decode < lines
//
// Each input line is a JSON string or an array of its bytes; with --chat
// {"messages": [{"role", "content"}, ...], "open_answer": bool}; with --decode
// an array of ids. Each output line is a JSON array of ids, of bytes with
// --decode. The tokenizer may also come from a Hugging Face folder (--hf DIR
// --vocab_size N, which --write_gguf FILE puts in a GGUF) and go into one
// (--write_hf DIR). Exit: 0; 1 for a bad file; 2 for a bad input line.
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/chat_template.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_writer.h"
#include "services/model/hf_tokenizer.h"
#include "services/model/hf_vocabulary.h"
#include "services/model/tokenizer.h"

ABSL_FLAG(std::string, gguf, "", "GGUF file with the tokenizer.");
ABSL_FLAG(std::string, hf, "", "Hugging Face folder with the tokenizer.");
ABSL_FLAG(int64_t, vocab_size, 0, "With --hf: rows of the embedding.");
ABSL_FLAG(std::string, write_gguf, "", "With --hf: a GGUF file to write.");
ABSL_FLAG(std::string, write_hf, "", "With --gguf: a folder to write.");
ABSL_FLAG(bool, add_bos, false, "Put the begin-of-sequence token first.");
ABSL_FLAG(bool, parse_control, false,
          "Turn the texts of control tokens into those tokens.");
ABSL_FLAG(bool, chat, false, "Read conversations; apply the chat template.");
ABSL_FLAG(bool, decode, false, "Read ids, print bytes.");

namespace {

using onegrid::model::ChatTemplate;
using onegrid::model::HfVocabulary;
using onegrid::model::Role;
using onegrid::model::Tokenizer;
using onegrid::model::Turn;

// False for a bad line.
bool EncodeChat(const ChatTemplate& chat_template, const nlohmann::json& line,
                std::vector<int32_t>* ids) {
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

// A JSON string, or the bytes of one that JSON cannot hold. False for neither.
bool TextOf(const nlohmann::json& line, std::string* text) {
  if (line.is_string()) {
    *text = line.get<std::string>();
    return true;
  }
  text->clear();
  if (!line.is_array()) return false;
  for (const nlohmann::json& byte : line) {
    if (!byte.is_number_unsigned() || byte.get<uint64_t>() > 255) return false;
    *text += static_cast<char>(byte.get<uint8_t>());
  }
  return true;
}

// Prints the bytes of a line of ids.
bool PrintDecoded(const Tokenizer& tokenizer, const nlohmann::json& line) {
  std::vector<int32_t> ids;
  if (!line.is_array()) return false;
  for (const nlohmann::json& id : line) {
    if (!id.is_number_integer()) return false;
    ids.push_back(id.get<int32_t>());
  }
  std::vector<int> bytes;
  for (const char c : tokenizer.Decode(ids)) {
    bytes.push_back(static_cast<uint8_t>(c));
  }
  std::cout << "[" << absl::StrJoin(bytes, ",") << "]\n";
  return true;
}

// Prints what a line asks for. False for a bad line.
bool Answer(const Tokenizer& tokenizer, const ChatTemplate* chat_template,
            const std::string& text) {
  const auto line = nlohmann::json::parse(text, nullptr, false);
  if (absl::GetFlag(FLAGS_decode)) return PrintDecoded(tokenizer, line);
  std::vector<int32_t> ids;
  if (chat_template != nullptr) {
    if (!EncodeChat(*chat_template, line, &ids)) return false;
  } else {
    std::string plain;
    if (!TextOf(line, &plain)) return false;
    ids = tokenizer.Encode(plain, absl::GetFlag(FLAGS_add_bos),
                           absl::GetFlag(FLAGS_parse_control));
  }
  std::cout << "[" << absl::StrJoin(ids, ",") << "]\n";
  return true;
}

// The tokenizer that the flags name; writes its other forms if they ask.
absl::StatusOr<std::unique_ptr<Tokenizer>> Load() {
  if (const std::string hf = absl::GetFlag(FLAGS_hf); !hf.empty()) {
    ASSIGN_OR_RETURN(
        HfVocabulary read,
        onegrid::model::ReadHfVocabulary(hf, absl::GetFlag(FLAGS_vocab_size)));
    if (const std::string out = absl::GetFlag(FLAGS_write_gguf); !out.empty()) {
      onegrid::model::GgufWriter writer;
      writer.Set("general.architecture", std::string("gemma4"));
      for (auto& [key, value] : onegrid::model::TokenizerMetadata(read)) {
        writer.Set(key, value);
      }
      RETURN_IF_ERROR(writer.WriteTo(out));
    }
    return std::make_unique<Tokenizer>(std::move(read.vocabulary));
  }
  ASSIGN_OR_RETURN(const auto file,
                   onegrid::model::GgufFile::Open(absl::GetFlag(FLAGS_gguf)));
  if (const std::string out = absl::GetFlag(FLAGS_write_hf); !out.empty()) {
    ASSIGN_OR_RETURN(const auto files, onegrid::model::HfTokenizerFiles(*file));
    RETURN_IF_ERROR(onegrid::common::MakeFolder(out));
    for (const auto& [name, contents] : files) {
      RETURN_IF_ERROR(onegrid::common::WriteFileAtomic(
          absl::StrCat(out, "/", name), contents));
    }
  }
  return Tokenizer::FromGguf(*file);
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

int Run() {
  const auto tokenizer = Load();
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  std::optional<ChatTemplate> chat_template;
  if (absl::GetFlag(FLAGS_chat)) {
    auto created = ChatTemplate::Create(**tokenizer);
    if (!created.ok()) return Fail(created.status());
    chat_template = *created;
  }
  std::string line;
  for (int number = 1; std::getline(std::cin, line); ++number) {
    if (!Answer(**tokenizer, chat_template ? &*chat_template : nullptr, line)) {
      std::fprintf(stderr, "line %d: not what the usage says\n", number);
      return 2;
    }
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
