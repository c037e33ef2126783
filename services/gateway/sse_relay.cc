#include "services/gateway/sse_relay.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "services/common/json_depth.h"

namespace onegrid::gateway {
namespace {

using nlohmann::json;

// No answer has so many; more would spoil the sums.
constexpr int64_t kTokensMax = 1'000'000'000;

std::optional<int64_t> Count(const json& usage, const char* name) {
  const auto found = usage.find(name);
  if (found == usage.end() || !found->is_number_unsigned() ||
      found->get<uint64_t>() > static_cast<uint64_t>(kTokensMax)) {
    return std::nullopt;
  }
  return found->get<int64_t>();
}

// The position behind the blank line that ends the first event; npos if it has
// not come. Lines end with "\n" or "\r\n".
size_t EndOfEvent(absl::string_view text, size_t from) {
  for (size_t line = text.find('\n', from); line != text.npos;
       line = text.find('\n', line + 1)) {
    const absl::string_view rest = text.substr(line + 1);
    if (absl::StartsWith(rest, "\n")) return line + 2;
    if (absl::StartsWith(rest, "\r\n")) return line + 3;
  }
  return text.npos;
}

}  // namespace

std::optional<TokenCount> UsageOf(absl::string_view text) {
  if (!absl::StrContains(text, "\"usage\"") ||
      common::NestsDeeperThan(text, common::kJsonDepthMax)) {
    return std::nullopt;
  }
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return std::nullopt;
  const auto usage = object.find("usage");
  if (usage == object.end() || !usage->is_object()) return std::nullopt;
  const auto prompt = Count(*usage, "prompt_tokens");
  const auto completion = Count(*usage, "completion_tokens");
  if (!prompt.has_value() || !completion.has_value()) return std::nullopt;
  return TokenCount{*prompt, *completion};
}

void SseRelay::Read(absl::string_view event) {
  for (absl::string_view line : absl::StrSplit(event, '\n')) {
    if (!absl::ConsumePrefix(&line, "data:")) continue;
    const absl::string_view data = absl::StripAsciiWhitespace(line);
    if (data == "[DONE]") {
      done_ = true;
      continue;
    }
    ++events_;
    if (const auto usage = UsageOf(data)) usage_ = usage;
  }
}

std::string SseRelay::Append(absl::string_view bytes) {
  if (too_large_) return "";
  pending_.append(bytes.data(), bytes.size());
  size_t begin = 0;
  while (true) {
    const size_t end = EndOfEvent(pending_, std::max(begin, searched_));
    if (end == std::string::npos) break;
    Read(absl::string_view(pending_).substr(begin, end - begin));
    begin = end;
  }
  std::string events = pending_.substr(0, begin);
  pending_.erase(0, begin);
  // The end of an event is up to three bytes; two may be here already.
  searched_ = pending_.size() < 2 ? 0 : pending_.size() - 2;
  too_large_ = pending_.size() > kEventBytesMax;
  return events;
}

}  // namespace onegrid::gateway
