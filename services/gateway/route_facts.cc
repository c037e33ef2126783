#include "services/gateway/route_facts.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/common/json_depth.h"
#include "services/gateway/openai_request.h"
#include "services/gateway/openai_response.h"

namespace onegrid::gateway {
namespace {

using nlohmann::json;

constexpr int64_t kCompletionMaxTokens = 16;  // the API's default

// Notes whether an object has a key twice: what is read of it is the last one,
// and another reader may take the first.
class DuplicateKeys {
 public:
  bool operator()(int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) keys_.emplace_back();
    if (event == json::parse_event_t::object_end) keys_.pop_back();
    if (event == json::parse_event_t::key &&
        !keys_.back().insert(parsed.get<std::string>()).second) {
      found_ = true;
    }
    return true;
  }
  bool found() const { return found_; }

 private:
  std::vector<std::set<std::string>> keys_;
  bool found_ = false;
};

// The value of a field; nullptr when it is absent or null.
const json* Find(const json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string Text(const json* value) {
  return value != nullptr && value->is_string() ? value->get<std::string>()
                                                : "";
}

int64_t Number(const json* value, int64_t otherwise) {
  if (value == nullptr || !value->is_number_integer()) return otherwise;
  const bool too_large =
      value->is_number_unsigned() &&
      value->get<uint64_t>() > static_cast<uint64_t>(RouteFacts::kNoLimit);
  return too_large ? RouteFacts::kNoLimit : value->get<int64_t>();
}

void AddText(const json& value, std::string* text) {
  if (!value.is_string()) return;
  if (!text->empty()) text->push_back('\n');
  text->append(value.get_ref<const std::string&>());
}

void ReadChat(const json& body, RouteFacts* facts) {
  const json* messages = Find(body, "messages");
  if (messages == nullptr || !messages->is_array()) return;
  for (const json& message : *messages) {
    const json* content = Find(message, "content");
    if (content == nullptr) continue;
    AddText(*content, &facts->text);
    if (!content->is_array()) continue;
    for (const json& part : *content) {
      const json* text = Find(part, "text");
      if (text != nullptr) AddText(*text, &facts->text);
    }
  }
}

void ReadPrompts(const json& body, RouteFacts* facts) {
  const json* prompt = Find(body, "prompt");
  if (prompt == nullptr) return;
  AddText(*prompt, &facts->text);
  if (!prompt->is_array()) return;
  for (const json& element : *prompt) {
    if (element.is_string()) {
      AddText(element, &facts->text);
    } else {
      facts->has_token_ids = true;
    }
  }
}

// Whether a mark says, or fails to say, that a request may leave.
enum class Mark { kNone, kPublic, kPrivate };

Mark MarkOfText(absl::string_view header) {
  if (header.empty()) return Mark::kNone;
  for (absl::string_view value : absl::StrSplit(header, ',')) {
    value = absl::StripAsciiWhitespace(value);
    if (absl::AsciiStrToLower(value) != "public") return Mark::kPrivate;
  }
  return Mark::kPublic;
}

// Of metadata.privacy. What is there and cannot be read is private.
Mark MarkOfBody(const json& body) {
  const json* metadata = Find(body, "metadata");
  if (metadata == nullptr) return Mark::kNone;
  if (!metadata->is_object()) return Mark::kPrivate;
  if (!metadata->contains("privacy")) return Mark::kNone;
  const json& privacy = (*metadata)["privacy"];
  if (!privacy.is_string()) return Mark::kPrivate;
  const Mark mark = MarkOfText(privacy.get_ref<const std::string&>());
  return mark == Mark::kNone ? Mark::kPrivate : mark;
}

bool IsPrivate(absl::string_view header, const json& body,
               bool private_by_default) {
  const Mark by_header = MarkOfText(header), by_body = MarkOfBody(body);
  if (by_header == Mark::kPrivate || by_body == Mark::kPrivate) return true;
  if (by_header == Mark::kPublic || by_body == Mark::kPublic) return false;
  return private_by_default;
}

// The position behind a string that begins at `position`.
size_t SkipString(absl::string_view text, size_t position) {
  for (++position; position < text.size() && text[position] != '"';
       ++position) {
    if (text[position] == '\\') ++position;
  }
  return std::min(position + 1, text.size());
}

}  // namespace

std::optional<RouteFacts> ReadRouteFacts(absl::string_view body, bool chat,
                                         absl::string_view privacy,
                                         absl::string_view task,
                                         bool private_by_default) {
  if (common::NestsDeeperThan(body, kMaxJsonDepth)) return std::nullopt;
  DuplicateKeys duplicates;
  json object;
  try {
    object = json::parse(body, std::ref(duplicates));
  } catch (const json::exception&) {
    return std::nullopt;
  }
  if (!object.is_object()) return std::nullopt;
  RouteFacts facts;
  facts.is_private =
      duplicates.found() || IsPrivate(privacy, object, private_by_default);
  facts.model = Text(Find(object, "model"));
  facts.task = std::string(absl::StripAsciiWhitespace(task));
  const json* metadata = Find(object, "metadata");
  if (facts.task.empty() && metadata != nullptr) {
    facts.task = Text(Find(*metadata, "task"));
  }
  const int64_t otherwise = chat ? RouteFacts::kNoLimit : kCompletionMaxTokens;
  facts.max_tokens = Number(Find(object, "max_tokens"), otherwise);
  facts.max_tokens =
      Number(Find(object, "max_completion_tokens"), facts.max_tokens);
  facts.n = Number(Find(object, "n"), 1);
  const json* stream = Find(object, "stream");
  facts.stream = stream != nullptr && *stream == true;
  const json* tools = Find(object, "tools");
  facts.has_tools = tools != nullptr && tools->is_array() && !tools->empty();
  const json* format = Find(object, "response_format");
  facts.has_response_format =
      format != nullptr && Text(Find(*format, "type")) != "text";
  if (chat) {
    ReadChat(object, &facts);
  } else {
    ReadPrompts(object, &facts);
  }
  facts.characters = CharacterCount(facts.text);
  return facts;
}

std::string WithModel(absl::string_view body, absl::string_view model) {
  const std::string value =
      json(std::string(model))
          .dump(-1, ' ', false, json::error_handler_t::replace);
  std::string out;
  size_t copied = 0;
  int depth = 0;
  for (size_t i = 0; i < body.size();) {
    const char c = body[i];
    if (c != '"') {
      depth += (c == '{' || c == '[') - (c == '}' || c == ']');
      ++i;
      continue;
    }
    const size_t end = SkipString(body, i);
    size_t colon = end;
    while (colon < body.size() && absl::ascii_isspace(body[colon])) ++colon;
    const bool is_key = depth == 1 && colon < body.size() && body[colon] == ':';
    // An escaped spelling is the same key.
    if (!is_key || json::parse(body.substr(i, end - i)) != "model") {
      i = end;
      continue;
    }
    size_t begin = colon + 1;
    while (begin < body.size() && absl::ascii_isspace(body[begin])) ++begin;
    if (begin >= body.size() || body[begin] != '"') {
      i = begin;
      continue;
    }
    absl::StrAppend(&out, body.substr(copied, begin - copied), value);
    copied = i = SkipString(body, begin);
  }
  absl::StrAppend(&out, body.substr(copied));
  return out;
}

}  // namespace onegrid::gateway
