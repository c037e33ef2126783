#include "services/model/chat_piece_writer.h"

#include <cstddef>
#include <utility>

#include "absl/strings/match.h"

namespace onegrid::model {
namespace {

using Kind = ChatPiece::Kind;

// Gemma 4's tokens of turns, thoughts and tools.
constexpr absl::string_view kMarks[] = {
    "<|turn>",      "<turn|>",          "<|think|>",        "<|channel>",
    "<channel|>",   "<|tool>",          "<tool|>",          "<|tool_call>",
    "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|\"|>"};

bool BeginsWithMark(absl::string_view text) {
  for (const absl::string_view mark : kMarks) {
    if (absl::StartsWith(text, mark)) return true;
  }
  return false;
}

}  // namespace

ChatPieceWriter::ChatPieceWriter(bool cuts_marks) : cuts_marks_(cuts_marks) {
  pieces_.push_back({Kind::kBos, "<bos>"});
}

void ChatPieceWriter::Control(absl::string_view name, int64_t answer_turn) {
  pieces_.push_back({Kind::kControl, std::string(name), answer_turn});
  joins_ = false;
}

void ChatPieceWriter::Fixed(absl::string_view text, int64_t answer_turn) {
  if (text.empty()) return;
  if (joins_ && pieces_.back().answer_turn == answer_turn) {
    pieces_.back().text.append(text.data(), text.size());
  } else {
    pieces_.push_back({Kind::kText, std::string(text), answer_turn});
  }
  joins_ = true;
}

void ChatPieceWriter::Said(absl::string_view text, int64_t answer_turn) {
  size_t begin = 0;
  for (size_t i = 0; cuts_marks_ && i < text.size(); ++i) {
    if (text[i] != '<' || !BeginsWithMark(text.substr(i))) continue;
    Fixed(text.substr(begin, i + 1 - begin), answer_turn);
    joins_ = false;
    begin = i + 1;
  }
  Fixed(text.substr(begin), answer_turn);
}

std::vector<ChatPiece> ChatPieceWriter::Take() { return std::move(pieces_); }

}  // namespace onegrid::model
