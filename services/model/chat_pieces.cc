#include "services/model/chat_pieces.h"

#include <cstddef>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "services/model/chat_tools.h"
#include "services/model/utf8.h"

namespace onegrid::model {
namespace {

constexpr char kSystemHeader[] = "system\n";
constexpr char kUserHeader[] = "user\n";
constexpr char kModelHeader[] = "model\n";
constexpr char kThoughtHeader[] = "thought\n";
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

void Gemma3Pieces(absl::Span<const Turn> turns, const ChatOptions& options,
                  ChatPieceWriter& writer) {
  const TurnMarks marks = RulesOf(options.format).marks;
  std::string prefix;
  for (size_t i = 0; i < turns.size(); ++i) {
    if (turns[i].role == Role::kSystem) {
      prefix = absl::StrCat(turns[i].text, "\n\n");
      continue;
    }
    const bool is_answer = turns[i].role == Role::kAssistant;
    const int64_t answer = is_answer ? static_cast<int64_t>(i) : -1;
    writer.Control(marks.start);
    // The header is apart from an answer, as in inference, where it ends the
    // prompt. The ids are those of the whole, since the text does not begin
    // with a newline.
    writer.Fixed(is_answer ? kModelHeader : kUserHeader);
    writer.Said(prefix, answer);
    writer.Said(StripUnicodeSpace(turns[i].text), answer);
    prefix.clear();
    writer.Control(marks.end, answer);
    writer.Fixed("\n");
  }
  if (!options.open_answer) return;
  writer.Control(marks.start);
  writer.Fixed(kModelHeader);
}

// Writes the turns of Gemma 4.
class Gemma4Turns {
 public:
  Gemma4Turns(absl::Span<const Turn> turns, const ChatOptions& options,
              ChatPieceWriter& writer)
      : turns_(turns),
        options_(options),
        rules_(RulesOf(options.format)),
        writer_(writer) {
    for (size_t i = 0; i < turns.size(); ++i) {
      if (turns[i].role == Role::kUser) last_user_ = i;
    }
  }

  void Write() {
    WriteSystem();
    for (size_t i = 0; i < turns_.size(); ++i) {
      if (turns_[i].role == Role::kUser) WriteUser(turns_[i]);
      if (turns_[i].role == Role::kAssistant) WriteAnswer(i);
    }
    // Behind results the model goes on with its turn.
    if (!options_.open_answer || in_tools_) return;
    Open(kModelHeader);
    if (!rules_.empty_thought || options_.enable_thinking) return;
    writer_.Control(kThoughtStart);
    writer_.Fixed(kThoughtHeader);
    writer_.Control(kThoughtEnd);
  }

 private:
  void Open(const char* header) {
    writer_.Control(rules_.marks.start);
    writer_.Fixed(header);
  }
  void Close(int64_t answer = -1) {
    writer_.Control(rules_.marks.end, answer);
    writer_.Fixed("\n");
  }

  void WriteSystem() {
    const bool has_text = turns_[0].role == Role::kSystem;
    if (!has_text && !options_.enable_thinking && options_.tools.empty()) {
      return;
    }
    Open(kSystemHeader);
    if (options_.enable_thinking) {
      writer_.Control("<|think|>");
      if (rules_.newline_after_think) writer_.Fixed("\n");
    }
    if (has_text) writer_.Said(StripUnicodeSpace(turns_[0].text));
    for (const std::string& tool : options_.tools) {
      WriteDeclaration(tool, rules_.drops_schema_words, writer_);
    }
    Close();
  }

  void WriteUser(const Turn& turn) {
    in_tools_ = false;
    Open(kUserHeader);
    writer_.Said(StripUnicodeSpace(turn.text));
    Close();
  }

  void WriteAnswer(size_t index) {
    const Turn& turn = turns_[index];
    const auto answer = static_cast<int64_t>(index);
    const bool goes_on = index > 0 && turns_[index - 1].role == Role::kTool;
    if (!goes_on) Open(kModelHeader);
    if (!turn.reasoning.empty() && index > last_user_ && !turn.calls.empty()) {
      writer_.Control(kThoughtStart);
      writer_.Fixed(kThoughtHeader);
      writer_.Said(turn.reasoning);
      writer_.Fixed("\n");
      writer_.Control(kThoughtEnd);
    }
    for (const ToolCall& call : turn.calls) WriteToolCall(call, writer_);
    in_tools_ = !turn.calls.empty();
    for (size_t i = index + 1; in_tools_ && i < turns_.size(); ++i) {
      if (turns_[i].role != Role::kTool) break;
      WriteToolResult(turns_[i].tool_name, turns_[i].text, writer_);
    }
    const std::string said = WithoutThoughts(turn.text);
    const absl::string_view text = StripUnicodeSpace(said);
    writer_.Said(text, answer);
    const bool has_text =
        rules_.blank_text_ends_turn ? !turn.text.empty() : !text.empty();
    if (!in_tools_ || has_text) Close(answer);
  }

  const absl::Span<const Turn> turns_;
  const ChatOptions& options_;
  const ChatRules& rules_;
  ChatPieceWriter& writer_;
  size_t last_user_ = 0;
  bool in_tools_ = false;  // the last answer has called tools
};

}  // namespace

std::vector<ChatPiece> ChatPieces(absl::Span<const Turn> turns,
                                  const ChatOptions& options) {
  const bool gemma4 = RulesOf(options.format).gemma4;
  ChatPieceWriter writer(/*cuts_marks=*/gemma4);
  if (gemma4) {
    Gemma4Turns(turns, options, writer).Write();
  } else {
    Gemma3Pieces(turns, options, writer);
  }
  return writer.Take();
}

}  // namespace onegrid::model
