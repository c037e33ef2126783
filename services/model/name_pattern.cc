#include "services/model/name_pattern.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"

namespace onegrid::model {
namespace {

constexpr size_t kNone = absl::string_view::npos;

absl::Status PatternError(absl::string_view text, absl::string_view what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "INVALID_NAME_PATTERN",
                           absl::StrCat("the pattern \"", text, "\" ", what),
                           {{"pattern", std::string(text)}});
}

// Digits only: SimpleAtoi would take signs and spaces too.
bool ParseNumber(absl::string_view digits, int64_t* number) {
  if (digits.empty()) return false;
  for (const char c : digits) {
    if (!absl::ascii_isdigit(c)) return false;
  }
  return absl::SimpleAtoi(digits, number);
}

}  // namespace

absl::StatusOr<NamePattern> NamePattern::Parse(absl::string_view text) {
  if (text.empty()) return PatternError(text, "is empty");
  NamePattern pattern;
  pattern.text_ = std::string(text);
  for (size_t i = 0; i < text.size(); ++i) {
    Element element{Kind::kCharacter, text[i]};
    if (text[i] == '*') {
      element.kind = Kind::kRun;
    } else if (text[i] == '}') {
      return PatternError(text, "has a } without a {");
    } else if (text[i] == '{') {
      const size_t end = text.find('}', i);
      if (end == kNone) return PatternError(text, "has a { without a }");
      const absl::string_view range = text.substr(i + 1, end - i - 1);
      const size_t dash = range.find('-');
      element.kind = Kind::kNumber;
      if (!ParseNumber(range.substr(0, dash), &element.first) ||
          !ParseNumber(dash == kNone ? range : range.substr(dash + 1),
                       &element.last) ||
          element.first > element.last) {
        return PatternError(text, absl::StrCat("has {", range,
                                               "}, expected a range of numbers "
                                               "such as {9-17} or {9}"));
      }
      i = end;
    }
    pattern.elements_.push_back(element);
  }
  return pattern;
}

int64_t NamePattern::Taken(const Element& element, absl::string_view name,
                           size_t at) {
  if (at >= name.size()) return -1;
  if (element.kind == Kind::kCharacter) {
    return name[at] == element.character ? 1 : -1;
  }
  // A number is all of its digits: {1} fits neither end of "11".
  if (at > 0 && absl::ascii_isdigit(name[at - 1])) return -1;
  size_t end = at;
  while (end < name.size() && absl::ascii_isdigit(name[end])) ++end;
  int64_t number = 0;
  if (!ParseNumber(name.substr(at, end - at), &number)) return -1;
  if (number < element.first || number > element.last) return -1;
  return static_cast<int64_t>(end - at);
}

// When an element does not fit, only the last run passed can help, by taking
// one character more.
bool NamePattern::Matches(absl::string_view name) const {
  size_t element = 0, at = 0;
  size_t last_run = kNone, run_end = 0;
  while (at < name.size() || element < elements_.size()) {
    if (element < elements_.size()) {
      if (elements_[element].kind == Kind::kRun) {
        last_run = element++;
        run_end = at;
        continue;
      }
      const int64_t taken = Taken(elements_[element], name, at);
      if (taken > 0) {
        at += static_cast<size_t>(taken);
        ++element;
        continue;
      }
    }
    if (last_run == kNone || run_end >= name.size()) return false;
    at = ++run_end;
    element = last_run + 1;
  }
  return true;
}

}  // namespace onegrid::model
