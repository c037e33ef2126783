#include "services/model/chat_pieces.h"

#include <cstddef>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "services/model/utf8.h"

namespace onegrid::model {
namespace {

using Kind = ChatPiece::Kind;

constexpr char kSystemHeader[] = "system\n";
constexpr char kUserHeader[] = "user\n";
constexpr char kModelHeader[] = "model\n";
constexpr char kThink[] = "<|think|>";
constexpr char kThoughtStart[] = "<|channel>";
constexpr char kThoughtEnd[] = "<channel|>";

// What is outside of thoughts, which need not be ended.
std::string WithoutThoughts(absl::string_view text) {
  std::string said;
  for (const absl::string_view part : absl::StrSplit(text, kThoughtEnd)) {
    absl::StrAppend(&said, part.substr(0, part.find(kThoughtStart)));
  }
  return said;
}

// Gemma 4's tokens of turns, thoughts and tools. Files type some of them as
// user-defined, which the tokenizer finds in any text.
constexpr const char* kMarks[] = {
    "<|turn>",      "<turn|>",          "<|think|>",        kThoughtStart,
    kThoughtEnd,    "<|tool>",          "<tool|>",          "<|tool_call>",
    "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|\"|>"};

// Cuts text within the names of marks, so that they stay text.
std::vector<std::string> CutMarks(absl::string_view text) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '<') continue;
    for (const absl::string_view mark : kMarks) {
      if (!absl::StartsWith(text.substr(i), mark)) continue;
      parts.emplace_back(text.substr(begin, i + 1 - begin));
      begin = i + 1;
    }
  }
  parts.emplace_back(text.substr(begin));
  return parts;
}

// Writes one conversation.
class PieceWriter {
 public:
  explicit PieceWriter(const ChatOptions& options)
      : options_(options), rules_(RulesOf(options.format)) {
    Add(Kind::kBos, "<bos>");
  }

  void Add(Kind kind, std::string text, int64_t answer = -1) {
    pieces_.push_back({kind, std::move(text), answer});
  }
  void AddText(const std::string& text, int64_t answer = -1) {
    if (!rules_.gemma4) return Add(Kind::kText, text, answer);
    for (std::string& part : CutMarks(text)) {
      Add(Kind::kText, std::move(part), answer);
    }
  }
  void Close(int64_t answer = -1) {
    Add(Kind::kControl, rules_.marks.end, answer);
    Add(Kind::kText, "\n");
  }

  // Gemma 4's; `text` without white space at its ends.
  void AddSystem(absl::string_view text) {
    Add(Kind::kControl, rules_.marks.start);
    if (!options_.enable_thinking) {
      AddText(absl::StrCat(kSystemHeader, text));
      return Close();
    }
    Add(Kind::kText, kSystemHeader);
    Add(Kind::kControl, kThink);
    AddText(absl::StrCat(rules_.newline_after_think ? "\n" : "", text));
    Close();
  }

  void AddUser(absl::string_view text) {
    Add(Kind::kControl, rules_.marks.start);
    AddText(absl::StrCat(kUserHeader, text));
    Close();
  }

  void AddAnswer(const std::string& text, int64_t index) {
    Add(Kind::kControl, rules_.marks.start);
    // Apart, as in inference, where the header ends the prompt. The ids are
    // those of the whole, since the text does not begin with a newline.
    Add(Kind::kText, kModelHeader);
    AddText(text, index);
    Close(index);
  }

  void OpenAnswer() {
    Add(Kind::kControl, rules_.marks.start);
    Add(Kind::kText, kModelHeader);
    if (!rules_.empty_thought || options_.enable_thinking) return;
    Add(Kind::kControl, kThoughtStart);
    Add(Kind::kText, "thought\n");
    Add(Kind::kControl, kThoughtEnd);
  }

  std::vector<ChatPiece> Take() { return std::move(pieces_); }

 private:
  const ChatOptions& options_;
  const ChatRules& rules_;
  std::vector<ChatPiece> pieces_;
};

}  // namespace

std::vector<ChatPiece> ChatPieces(absl::Span<const Turn> turns,
                                  const ChatOptions& options) {
  const bool gemma4 = RulesOf(options.format).gemma4;
  PieceWriter writer(options);
  std::string prefix;
  if (turns[0].role == Role::kSystem && !gemma4) {
    prefix = absl::StrCat(turns[0].text, "\n\n");
  } else if (turns[0].role == Role::kSystem) {
    writer.AddSystem(StripUnicodeSpace(turns[0].text));
  } else if (gemma4 && options.enable_thinking) {
    writer.AddSystem("");
  }
  for (size_t i = 0; i < turns.size(); ++i) {
    const Turn& turn = turns[i];
    if (turn.role == Role::kUser) {
      writer.AddUser(absl::StrCat(prefix, StripUnicodeSpace(turn.text)));
      prefix.clear();
    } else if (turn.role == Role::kAssistant) {
      const std::string said = gemma4 ? WithoutThoughts(turn.text) : turn.text;
      writer.AddAnswer(std::string(StripUnicodeSpace(said)),
                       static_cast<int64_t>(i));
    }
  }
  if (options.open_answer) writer.OpenAnswer();
  return writer.Take();
}

}  // namespace onegrid::model
