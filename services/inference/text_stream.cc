#include "services/inference/text_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "services/inference/utf8.h"

namespace onegrid::inference {

TextStream::TextStream(std::vector<std::string> stops) {
  for (std::string& stop : stops) {
    if (!stop.empty()) stops_.push_back(std::move(stop));
  }
}

bool TextStream::FindStop(size_t* position) {
  *position = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t found = pending_.find(stop);
    if (found != std::string::npos &&
        (*position == std::string::npos || found < *position)) {
      *position = found;
      stop_string_ = stop;
    }
  }
  return *position != std::string::npos;
}

// The longest suffix that is a proper prefix of a stop string, or the
// unfinished character at the end, whichever is longer.
size_t TextStream::HeldBytes() const {
  size_t held = IncompleteTailBytes(pending_);
  for (const std::string& stop : stops_) {
    const size_t longest = std::min(stop.size() - 1, pending_.size());
    for (size_t n = longest; n > held; --n) {
      const absl::string_view suffix =
          absl::string_view(pending_).substr(pending_.size() - n);
      if (absl::StartsWith(stop, suffix)) held = n;
    }
  }
  return held;
}

std::string TextStream::Append(absl::string_view piece) {
  if (stopped_) return "";
  pending_.append(piece.data(), piece.size());
  size_t release;
  if (FindStop(&release)) {
    // A stop that begins later may already be whole while one that begins
    // earlier is still unfinished: the first whole one ends the output.
    stopped_ = true;
  } else {
    release = pending_.size() - HeldBytes();
  }
  std::string text =
      ReplaceInvalidUtf8(absl::string_view(pending_).substr(0, release));
  pending_.erase(0, stopped_ ? std::string::npos : release);
  return text;
}

std::string TextStream::Finish() {
  if (stopped_) return "";
  std::string text = ReplaceInvalidUtf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace onegrid::inference
