#include "services/gateway/chat_prompt.h"

#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/common/error_info.h"
#include "services/gateway/chat_answer.h"
#include "services/model/chat_format.h"
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

absl::StatusOr<model::ChatFormat> FormatOf(const v1::ServerInfo& info) {
  const std::string& name = info.chat_format();
  const auto format = model::ChatFormatNamed(name);
  if (format.has_value()) return *format;
  const std::string& sha256 = info.chat_template_sha256();
  if (!name.empty() || sha256.empty()) {
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "UNKNOWN_CHAT_TEMPLATE",
        absl::StrCat("the inference server names the chat format \"", name,
                     "\", this gateway knows ", model::ChatFormatNames(),
                     ": the two are of different versions"),
        {{"found", name}, {"known", model::ChatFormatNames()}});
  }
  return common::MakeError(
      absl::StatusCode::kFailedPrecondition, "UNKNOWN_CHAT_TEMPLATE",
      absl::StrCat(
          "the chat template of the served model (SHA-256 ", sha256,
          ") is none of those that are known, so it cannot chat; "
          "--chat_format of inference names the format to use, one of ",
          model::ChatFormatNames(), "; /v1/completions takes any text"),
      {{"sha256", sha256}, {"known", model::ChatFormatNames()}});
}

absl::Status CheckFormat(const CompletionRequest& request,
                         const model::ChatRules& rules) {
  if (request.enable_thinking && !rules.gemma4) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "THINKING_NOT_SUPPORTED",
        absl::StrCat("enable_thinking is set, but the chat format ", rules.name,
                     " has no thoughts"),
        {{"format", rules.name}});
  }
  bool has_tools = !request.tools.empty();
  for (const model::Turn& turn : request.turns) {
    has_tools = has_tools || !turn.calls.empty();
  }
  if (!has_tools || rules.tools) return absl::OkStatus();
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "TOOLS_NOT_SUPPORTED",
      absl::StrCat("there are tools or tool calls, but the chat format ",
                   rules.name,
                   " has none; tools with tool_choice \"none\" are "
                   "left out"),
      {{"format", rules.name}});
}

// The id of a control token; none if the model has no such one.
absl::StatusOr<std::optional<int32_t>> MarkId(Backend& backend,
                                              absl::string_view mark,
                                              absl::Time deadline) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                   backend.Tokenize(mark, /*add_bos=*/false,
                                    /*parse_control_tokens=*/true, deadline));
  if (ids.size() != 1) return std::nullopt;
  return ids.front();
}

absl::Status CheckGoesOn(const v1::ServerInfo& info, size_t tokens,
                         const AbandonedFn& abandoned) {
  if (abandoned()) return absl::CancelledError("the caller went away");
  const auto most = static_cast<size_t>(info.max_context());
  if (most == 0 || tokens <= most) return absl::OkStatus();
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "CONTEXT_TOO_LONG",
                           absl::StrCat("the messages are more than ", most,
                                        " tokens, the context of the server"),
                           {{"max_context", absl::StrCat(most)}});
}

}  // namespace

absl::StatusOr<ChatTokens> ChatPrompt(Backend& backend,
                                      const CompletionRequest& request,
                                      absl::Time deadline,
                                      const AbandonedFn& abandoned) {
  ChatTokens chat;
  ASSIGN_OR_RETURN(const v1::ServerInfo info,
                   backend.Info(deadline - absl::Now()));
  ASSIGN_OR_RETURN(chat.format, FormatOf(info));
  const model::ChatRules& rules = model::RulesOf(chat.format);
  RETURN_IF_ERROR(CheckFormat(request, rules));
  // Headers and ends are the same in every turn.
  std::map<std::pair<ChatPiece::Kind, std::string>, std::vector<int32_t>> seen;
  const model::ChatOptions options = {chat.format, /*open_answer=*/true,
                                      request.enable_thinking, request.tools};
  for (const ChatPiece& piece : model::ChatPieces(request.turns, options)) {
    RETURN_IF_ERROR(CheckGoesOn(info, chat.ids.size(), abandoned));
    const auto key = std::make_pair(piece.kind, piece.text);
    auto found = seen.find(key);
    if (found == seen.end()) {
      ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                       PieceTokens(backend, piece, deadline));
      found = seen.emplace(key, std::move(ids)).first;
    }
    chat.ids.insert(chat.ids.end(), found->second.begin(), found->second.end());
  }
  RETURN_IF_ERROR(CheckGoesOn(info, chat.ids.size(), abandoned));
  if (rules.gemma4) {
    ASSIGN_OR_RETURN(chat.thought_start,
                     MarkId(backend, kThoughtStart, deadline));
  }
  if (!request.tools.empty()) {
    ASSIGN_OR_RETURN(chat.call_start, MarkId(backend, kCallStart, deadline));
  }
  return chat;
}

}  // namespace onegrid::gateway
