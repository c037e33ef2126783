#include "services/gateway/chat_prompt.h"

#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/model/chat_pieces.h"

namespace onegrid::gateway {
namespace {

using model::ChatPiece;

absl::StatusOr<std::vector<int32_t>> PieceTokens(Backend& backend,
                                                 const ChatPiece& piece,
                                                 absl::Time deadline) {
  if (piece.kind == ChatPiece::Kind::kBos) {
    return backend.Tokenize("", /*add_bos=*/true,
                            /*parse_control_tokens=*/false, deadline);
  }
  const bool control = piece.kind == ChatPiece::Kind::kControl;
  ASSIGN_OR_RETURN(
      std::vector<int32_t> ids,
      backend.Tokenize(piece.text, /*add_bos=*/false,
                       /*parse_control_tokens=*/control, deadline));
  if (control && ids.size() != 1) {
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "NO_CHAT_TOKENS",
        absl::StrCat("the served model has no control token ", piece.text,
                     ", so it cannot chat; /v1/completions takes any text"),
        {{"token", piece.text}});
  }
  return ids;
}

// Gemma 4's if the served model has its token of a turn.
absl::StatusOr<model::ChatFormat> FormatOf(Backend& backend,
                                           absl::Time deadline) {
  ASSIGN_OR_RETURN(
      const std::vector<int32_t> ids,
      backend.Tokenize(model::TurnMarksOf(model::ChatFormat::kGemma4).start,
                       /*add_bos=*/false,
                       /*parse_control_tokens=*/true, deadline));
  return ids.size() == 1 ? model::ChatFormat::kGemma4
                         : model::ChatFormat::kGemma3;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> ChatPrompt(
    Backend& backend, absl::Span<const model::Turn> turns,
    absl::Time deadline) {
  ASSIGN_OR_RETURN(const model::ChatFormat format, FormatOf(backend, deadline));
  std::vector<int32_t> tokens;
  // Headers and ends are the same in every turn.
  std::map<std::pair<ChatPiece::Kind, std::string>, std::vector<int32_t>> seen;
  for (const ChatPiece& piece : model::ChatPieces(turns, true, format)) {
    if (piece.text.empty()) continue;
    const auto key = std::make_pair(piece.kind, piece.text);
    auto found = seen.find(key);
    if (found == seen.end()) {
      ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                       PieceTokens(backend, piece, deadline));
      found = seen.emplace(key, std::move(ids)).first;
    }
    tokens.insert(tokens.end(), found->second.begin(), found->second.end());
  }
  return tokens;
}

}  // namespace onegrid::gateway
