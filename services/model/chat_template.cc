#include "services/model/chat_template.h"

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/utf8.h"

namespace onegrid::model {
namespace {

constexpr char kStartOfTurn[] = "<start_of_turn>";
constexpr char kEndOfTurn[] = "<end_of_turn>";

// One turn as it is rendered.
struct RenderedTurn {
  int64_t turn;        // Index among the turns.
  std::string header;  // Between <start_of_turn> and the text.
  std::string text;
};

std::string Header(Role role) {
  return role == Role::kAssistant ? "model\n" : "user\n";
}

std::vector<RenderedTurn> Render(absl::Span<const Turn> turns) {
  std::vector<RenderedTurn> rendered;
  std::string prefix;
  for (size_t i = 0; i < turns.size(); ++i) {
    if (turns[i].role == Role::kSystem) {
      prefix = absl::StrCat(turns[i].text, "\n\n");
      continue;
    }
    rendered.push_back(
        {static_cast<int64_t>(i), Header(turns[i].role),
         absl::StrCat(prefix, StripUnicodeSpace(turns[i].text))});
    prefix.clear();
  }
  return rendered;
}

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
  const int32_t start = ControlToken(tokenizer.vocabulary(), kStartOfTurn);
  const int32_t end = ControlToken(tokenizer.vocabulary(), kEndOfTurn);
  if (start < 0 || end < 0) {
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "NO_CHAT_TOKENS",
        absl::StrCat("the vocabulary has no control token ",
                     start < 0 ? kStartOfTurn : kEndOfTurn,
                     ", so conversations cannot be written in it"),
        {{"token", start < 0 ? kStartOfTurn : kEndOfTurn}});
  }
  return ChatTemplate(tokenizer, start, end);
}

ChatTokens ChatTemplate::Encode(absl::Span<const Turn> turns,
                                bool open_answer) const {
  ChatTokens chat;
  const auto append = [&](absl::string_view text) {
    const std::vector<int32_t> ids =
        tokenizer_->Encode(text, /*add_bos=*/false, /*parse_control=*/false);
    chat.tokens.insert(chat.tokens.end(), ids.begin(), ids.end());
  };
  chat.tokens.push_back(tokenizer_->bos());
  for (const RenderedTurn& turn : Render(turns)) {
    chat.tokens.push_back(start_of_turn_);
    if (turns[static_cast<size_t>(turn.turn)].role == Role::kAssistant) {
      // Apart, as in inference, where the header ends the prompt. The ids are
      // those of the whole, since the text does not begin with a newline.
      append(turn.header);
      const auto begin = static_cast<int64_t>(chat.tokens.size());
      append(turn.text);
      chat.tokens.push_back(end_of_turn_);
      chat.answers.push_back(
          {turn.turn, begin, static_cast<int64_t>(chat.tokens.size())});
    } else {
      append(turn.header + turn.text);
      chat.tokens.push_back(end_of_turn_);
    }
    append("\n");
  }
  if (open_answer) {
    chat.tokens.push_back(start_of_turn_);
    append(Header(Role::kAssistant));
  }
  return chat;
}

std::string ChatTemplate::Text(absl::Span<const Turn> turns, bool open_answer) {
  std::string text = "<bos>";
  for (const RenderedTurn& turn : Render(turns)) {
    absl::StrAppend(&text, kStartOfTurn, turn.header, turn.text, kEndOfTurn,
                    "\n");
  }
  if (open_answer) {
    absl::StrAppend(&text, kStartOfTurn, Header(Role::kAssistant));
  }
  return text;
}

std::string ChatTemplate::Digest() {
  const Turn turns[] = {{Role::kSystem, " s \n"},
                        {Role::kUser, " u1 "},
                        {Role::kAssistant, "\ta1\n"},
                        {Role::kUser, "u2"},
                        {Role::kAssistant, "a2"}};
  return common::Sha256Of(Text(turns, /*open_answer=*/true));
}

}  // namespace onegrid::model
