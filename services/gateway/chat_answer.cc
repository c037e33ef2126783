#include "services/gateway/chat_answer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/gateway/call_parser.h"

namespace onegrid::gateway {
namespace {

constexpr absl::string_view kThoughtEnd = "<channel|>";
constexpr absl::string_view kCallEnd = "<tool_call|>";
// A first line of a thought that is longer is no name of a channel.
constexpr size_t kHeaderBytesMax = 32;

// Bytes at the end of `text` that may begin `mark`.
size_t BegunBytes(absl::string_view text, absl::string_view mark) {
  for (size_t bytes = std::min(text.size(), mark.size() - 1); bytes > 0;
       --bytes) {
    if (absl::EndsWith(text, mark.substr(0, bytes))) return bytes;
  }
  return 0;
}

}  // namespace

std::string ChatAnswer::Take(size_t bytes) {
  std::string taken = pending_.substr(0, bytes);
  pending_.erase(0, bytes);
  return taken;
}

bool ChatAnswer::ReadText(bool ends, AnswerPart* part) {
  const absl::string_view pending = pending_;
  const size_t thought =
      thoughts_ > 0 ? pending.find(kThoughtStart) : std::string::npos;
  const size_t call = calls_ > 0 ? pending.find(kCallStart) : std::string::npos;
  const size_t mark = std::min(thought, call);
  if (mark == std::string::npos) {
    size_t kept = 0;
    if (thoughts_ > 0 && !ends) kept = BegunBytes(pending_, kThoughtStart);
    if (calls_ > 0 && !ends) {
      kept = std::max(kept, BegunBytes(pending_, kCallStart));
    }
    part->text += Take(pending_.size() - kept);
    return false;
  }
  part->text += Take(mark);
  const bool thinks = thought < call;
  --(thinks ? thoughts_ : calls_);
  Take(thinks ? kThoughtStart.size() : kCallStart.size());
  state_ = thinks ? State::kThought : State::kCall;
  in_header_ = thinks;
  searched_ = 0;
  return true;
}

bool ChatAnswer::ReadThought(bool ends, AnswerPart* part) {
  const size_t end = absl::string_view(pending_).find(kThoughtEnd);
  if (in_header_) {
    const size_t line = pending_.find('\n');
    if (line < end && line <= kHeaderBytesMax) {
      Take(line + 1);
      in_header_ = false;
      return true;
    }
    const bool is_whole = end != std::string::npos || ends;
    if (!is_whole && line == std::string::npos &&
        pending_.size() - BegunBytes(pending_, kThoughtEnd) <=
            kHeaderBytesMax) {
      return false;
    }
    // A thought of nothing but its header says nothing.
    const size_t said = std::min(end, pending_.size());
    if (is_whole && said <= kHeaderBytesMax) Take(said);
    in_header_ = false;
    return true;
  }
  if (end != std::string::npos) {
    std::string said = Take(end);
    if (absl::EndsWith(said, "\n")) said.pop_back();
    part->reasoning += said;
    Take(kThoughtEnd.size());
    state_ = State::kText;
    return true;
  }
  size_t kept = 0;
  if (!ends) {
    kept = BegunBytes(pending_, kThoughtEnd);
    const size_t before = pending_.size() - kept;
    if (before > 0 && pending_[before - 1] == '\n') ++kept;
  }
  part->reasoning += Take(pending_.size() - kept);
  return false;
}

bool ChatAnswer::ReadCall(bool ends, AnswerPart* part) {
  const size_t end = absl::string_view(pending_).find(kCallEnd, searched_);
  if (end == std::string::npos) {
    searched_ = pending_.size() - BegunBytes(pending_, kCallEnd);
    if (ends) {
      part->text += absl::StrCat(kCallStart, Take(pending_.size()));
      state_ = State::kText;
    }
    return false;
  }
  const std::string body = Take(end);
  Take(kCallEnd.size());
  state_ = State::kText;
  AnsweredCall call;
  if (ParseCall(body, &call.name, &call.arguments)) {
    part->calls.push_back(std::move(call));
  } else {
    absl::StrAppend(&part->text, kCallStart, body, kCallEnd);
  }
  return true;
}

AnswerPart ChatAnswer::Read(bool ends) {
  AnswerPart part;
  bool goes_on = true;
  while (goes_on) {
    switch (state_) {
      case State::kText:
        goes_on = ReadText(ends, &part);
        break;
      case State::kThought:
        goes_on = ReadThought(ends, &part);
        break;
      case State::kCall:
        goes_on = ReadCall(ends, &part);
        break;
    }
  }
  return part;
}

AnswerPart ChatAnswer::Append(absl::string_view text) {
  absl::StrAppend(&pending_, text);
  return Read(/*ends=*/false);
}

AnswerPart ChatAnswer::Finish() { return Read(/*ends=*/true); }

}  // namespace onegrid::gateway
