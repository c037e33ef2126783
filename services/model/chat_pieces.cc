#include "services/model/chat_pieces.h"

#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/model/utf8.h"

namespace onegrid::model {
namespace {

constexpr char kUserHeader[] = "user\n";
constexpr char kModelHeader[] = "model\n";

}  // namespace

std::vector<ChatPiece> ChatPieces(absl::Span<const Turn> turns,
                                  bool open_answer) {
  using Kind = ChatPiece::Kind;
  std::vector<ChatPiece> pieces = {{Kind::kBos, "<bos>"}};
  std::string prefix;
  for (size_t i = 0; i < turns.size(); ++i) {
    if (turns[i].role == Role::kSystem) {
      prefix = absl::StrCat(turns[i].text, "\n\n");
      continue;
    }
    const bool is_answer = turns[i].role == Role::kAssistant;
    const int64_t answer = is_answer ? static_cast<int64_t>(i) : -1;
    std::string text = absl::StrCat(prefix, StripUnicodeSpace(turns[i].text));
    prefix.clear();
    pieces.push_back({Kind::kControl, kStartOfTurn});
    if (is_answer) {
      // Apart, as in inference, where the header ends the prompt. The ids are
      // those of the whole, since the text does not begin with a newline.
      pieces.push_back({Kind::kText, kModelHeader});
      pieces.push_back({Kind::kText, std::move(text), answer});
    } else {
      pieces.push_back({Kind::kText, kUserHeader + text});
    }
    pieces.push_back({Kind::kControl, kEndOfTurn, answer});
    pieces.push_back({Kind::kText, "\n"});
  }
  if (open_answer) {
    pieces.push_back({Kind::kControl, kStartOfTurn});
    pieces.push_back({Kind::kText, kModelHeader});
  }
  return pieces;
}

}  // namespace onegrid::model
