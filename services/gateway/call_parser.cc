#include "services/gateway/call_parser.h"

#include <cstddef>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"

namespace onegrid::gateway {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kQuote = "<|\"|>";
constexpr int kDepthMax = 64;

// Each function reads from the front of the text; false for a wrong one.
class CallParser {
 public:
  explicit CallParser(absl::string_view text) : text_(text) {}

  bool Call(std::string* name, Json* arguments) {
    if (!absl::ConsumePrefix(&text_, "call:")) return false;
    const size_t brace = text_.find('{');
    if (brace == absl::string_view::npos) return false;
    *name = std::string(absl::StripAsciiWhitespace(text_.substr(0, brace)));
    text_.remove_prefix(brace);
    return !name->empty() && Object(arguments, 0) && Space() && text_.empty();
  }

 private:
  // Always true.
  bool Space() {
    text_ = absl::StripLeadingAsciiWhitespace(text_);
    return true;
  }
  bool Consume(absl::string_view mark) {
    Space();
    return absl::ConsumePrefix(&text_, mark);
  }

  bool Quoted(std::string* out) {
    const size_t end = text_.find(kQuote);
    if (end == absl::string_view::npos) return false;
    *out = std::string(text_.substr(0, end));
    text_.remove_prefix(end + kQuote.size());
    return true;
  }

  // Text up to one of `ends`, without the spaces around it.
  bool Bare(const char* ends, std::string* out) {
    const size_t end = text_.find_first_of(ends);
    if (end == absl::string_view::npos) return false;
    *out = std::string(absl::StripAsciiWhitespace(text_.substr(0, end)));
    text_.remove_prefix(end);
    return !out->empty();
  }

  bool Object(Json* out, int depth) {
    *out = Json::object();
    if (depth > kDepthMax || !Consume("{")) return false;
    if (Consume("}")) return true;
    do {
      std::string key;
      if (!(Consume(kQuote) ? Quoted(&key) : Bare(":,{}[]", &key))) {
        return false;
      }
      Json value;
      if (!Consume(":") || !Value(&value, depth + 1)) return false;
      (*out)[key] = std::move(value);
    } while (Consume(","));
    return Consume("}");
  }

  bool List(Json* out, int depth) {
    *out = Json::array();
    if (depth > kDepthMax || !Consume("[")) return false;
    if (Consume("]")) return true;
    do {
      Json value;
      if (!Value(&value, depth + 1)) return false;
      out->push_back(std::move(value));
    } while (Consume(","));
    return Consume("]");
  }

  bool Value(Json* out, int depth) {
    Space();
    if (text_.empty()) return false;
    if (text_[0] == '{') return Object(out, depth);
    if (text_[0] == '[') return List(out, depth);
    std::string text;
    if (Consume(kQuote)) {
      if (!Quoted(&text)) return false;
      *out = text;
      return true;
    }
    if (!Bare(",}]", &text)) return false;
    // Python's, as the templates write it in calls that the model has read.
    if (text == "None") return true;
    const bool literal = text == "true" || text == "false" || text == "null" ||
                         text[0] == '-' || absl::ascii_isdigit(text[0]);
    if (literal) *out = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    // A whole number beyond 64 bits keeps its digits as a string.
    const bool rounded = literal && out->is_number_float() &&
                         text.find_first_of(".eE") == std::string::npos;
    if (!literal || out->is_discarded() || rounded) *out = text;
    return true;
  }

  absl::string_view text_;
};

}  // namespace

bool ParseCall(absl::string_view text, std::string* name,
               std::string* arguments) {
  Json object;
  if (!CallParser(text).Call(name, &object)) return false;
  *arguments = object.dump(-1, ' ', false, Json::error_handler_t::replace);
  return true;
}

}  // namespace onegrid::gateway
