#include "services/model/chat_template.h"

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/chat_pieces.h"

namespace onegrid::model {
namespace {

// The id of a control token; -1 if the vocabulary has none of that name.
int32_t ControlToken(const Vocabulary& vocabulary, absl::string_view name) {
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const VocabularyToken& token = vocabulary.tokens[id];
    if (token.text == name && token.type == TokenType::kControl) {
      return static_cast<int32_t>(id);
    }
  }
  return -1;
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Create(const Tokenizer& tokenizer) {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  const char* const gemma4_start = RulesOf(ChatFormat::kGemma4).marks.start;
  const ChatFormat format = ControlToken(vocabulary, gemma4_start) >= 0
                                ? ChatFormat::kGemma4
                                : ChatFormat::kGemma3;
  const TurnMarks marks = RulesOf(format).marks;
  const int32_t start = ControlToken(vocabulary, marks.start);
  const int32_t end = ControlToken(vocabulary, marks.end);
  if (start < 0 || end < 0) {
    const char* const missing = start < 0 ? marks.start : marks.end;
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "NO_CHAT_TOKENS",
        absl::StrCat("the vocabulary has no control token ", missing,
                     ", so conversations cannot be written in it"),
        {{"token", missing}});
  }
  return ChatTemplate(tokenizer, format, start, end);
}

ChatTokens ChatTemplate::Encode(absl::Span<const Turn> turns,
                                bool open_answer) const {
  ChatTokens chat;
  const absl::string_view start = RulesOf(format_).marks.start;
  for (const ChatPiece& piece : ChatPieces(turns, {format_, open_answer})) {
    const auto begin = static_cast<int64_t>(chat.tokens.size());
    if (piece.kind == ChatPiece::Kind::kBos) {
      chat.tokens.push_back(tokenizer_->bos());
    } else if (piece.kind == ChatPiece::Kind::kControl) {
      chat.tokens.push_back(piece.text == start ? start_of_turn_
                                                : end_of_turn_);
    } else {
      const std::vector<int32_t> ids = tokenizer_->Encode(
          piece.text, /*add_bos=*/false, /*parse_control=*/false);
      chat.tokens.insert(chat.tokens.end(), ids.begin(), ids.end());
    }
    if (piece.answer_turn < 0) continue;
    if (chat.answers.empty() || chat.answers.back().turn != piece.answer_turn) {
      chat.answers.push_back({piece.answer_turn, begin, begin});
    }
    chat.answers.back().end = static_cast<int64_t>(chat.tokens.size());
  }
  return chat;
}

std::string ChatTemplate::Text(absl::Span<const Turn> turns,
                               const ChatOptions& options) {
  std::string text;
  for (const ChatPiece& piece : ChatPieces(turns, options)) {
    text += piece.text;
  }
  return text;
}

std::string ChatTemplate::Digest(ChatFormat format) {
  const Turn turns[] = {{Role::kSystem, " s \n"},
                        {Role::kUser, " u1 "},
                        {Role::kAssistant, "\ta1\n"},
                        {Role::kUser, "u2"},
                        {Role::kAssistant, "a2"}};
  return common::Sha256Of(Text(turns, {format, /*open_answer=*/true}));
}

}  // namespace onegrid::model
