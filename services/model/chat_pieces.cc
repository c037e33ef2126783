#include "services/model/chat_pieces.h"

#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/model/utf8.h"

namespace onegrid::model {
namespace {

constexpr char kSystemHeader[] = "system\n";
constexpr char kUserHeader[] = "user\n";
constexpr char kModelHeader[] = "model\n";

}  // namespace

TurnMarks TurnMarksOf(ChatFormat format) {
  if (format == ChatFormat::kGemma4) return {"<|turn>", "<turn|>"};
  return {"<start_of_turn>", "<end_of_turn>"};
}

std::vector<ChatPiece> ChatPieces(absl::Span<const Turn> turns,
                                  bool open_answer, ChatFormat format) {
  using Kind = ChatPiece::Kind;
  const TurnMarks marks = TurnMarksOf(format);
  std::vector<ChatPiece> pieces = {{Kind::kBos, "<bos>"}};
  std::string prefix;
  for (size_t i = 0; i < turns.size(); ++i) {
    const Role role = turns[i].role;
    if (role == Role::kSystem && format == ChatFormat::kGemma3) {
      prefix = absl::StrCat(turns[i].text, "\n\n");
      continue;
    }
    const bool is_answer = role == Role::kAssistant;
    const int64_t answer = is_answer ? static_cast<int64_t>(i) : -1;
    std::string text = absl::StrCat(prefix, StripUnicodeSpace(turns[i].text));
    prefix.clear();
    pieces.push_back({Kind::kControl, marks.start});
    if (is_answer) {
      // Apart, as in inference, where the header ends the prompt. The ids are
      // those of the whole, since the text does not begin with a newline.
      pieces.push_back({Kind::kText, kModelHeader});
      pieces.push_back({Kind::kText, std::move(text), answer});
    } else {
      const char* header = role == Role::kSystem ? kSystemHeader : kUserHeader;
      pieces.push_back({Kind::kText, header + text});
    }
    pieces.push_back({Kind::kControl, marks.end, answer});
    pieces.push_back({Kind::kText, "\n"});
  }
  if (open_answer) {
    pieces.push_back({Kind::kControl, marks.start});
    pieces.push_back({Kind::kText, kModelHeader});
  }
  return pieces;
}

}  // namespace onegrid::model
