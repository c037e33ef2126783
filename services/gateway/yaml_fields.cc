#include "services/gateway/yaml_fields.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/error_info.h"

namespace onegrid::gateway {
namespace {

constexpr size_t kTextBytesMax = 4096;
constexpr size_t kShownKeyBytes = 64;

// A key in a wrong place may be anything, even a secret.
std::string ShownKey(const std::string& key) {
  const bool plain = std::all_of(key.begin(), key.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '_' || c == '-';
  });
  return plain && !key.empty() && key.size() <= kShownKeyBytes
             ? key
             : "(unprintable)";
}

}  // namespace

YamlFields::YamlFields(const YAML::Node& node, std::string where,
                       std::vector<std::string> known, absl::Status* status)
    : where_(std::move(where)), status_(status), mark_(node.Mark()) {
  if (!node.IsMap()) {
    FailAt(mark_, absl::StrCat("expected a map with the keys ",
                               absl::StrJoin(known, ", ")));
    return;
  }
  for (const auto& entry : node) {
    const YAML::Mark mark = entry.first.Mark();
    const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      FailAt(mark, absl::StrCat("unknown key ", ShownKey(key), "; there are ",
                                absl::StrJoin(known, ", ")));
      return;
    }
    if (!values_.emplace(key, entry.second).second) {
      FailAt(mark, absl::StrCat("a second ", key));
      return;
    }
  }
}

YAML::Node YamlFields::Find(const std::string& key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? YAML::Node(YAML::NodeType::Undefined)
                                : found->second;
}

void YamlFields::FailAt(const YAML::Mark& mark, absl::string_view what) {
  if (!status_->ok()) return;
  const int line = mark.is_null() ? 1 : mark.line + 1;
  *status_ = common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_ROUTES",
      absl::StrCat("routes: line ", line, ", ", where_, ": ", what),
      {{"line", absl::StrCat(line)}});
}

void YamlFields::Fail(const std::string& key, absl::string_view what) {
  const auto found = values_.find(key);
  const YAML::Mark mark = found == values_.end() ? mark_ : found->second.Mark();
  FailAt(mark, absl::StrCat(key, ": ", what));
}

void YamlFields::Require(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    if (!Has(key)) FailAt(mark_, absl::StrCat(key, " is missing"));
  }
}

bool YamlFields::ReadScalar(const std::string& key, const YAML::Node& node,
                            std::string* out) {
  if (!node.IsScalar()) {
    Fail(key, "expected a text");
    return false;
  }
  const std::string& text = node.Scalar();
  const bool has_control = std::any_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_iscntrl(static_cast<unsigned char>(c));
  });
  if (text.empty() || text.size() > kTextBytesMax || has_control) {
    Fail(key,
         "expected a text that is not empty, not longer than 4096 bytes "
         "and without control characters");
    return false;
  }
  *out = text;
  return true;
}

void YamlFields::Read(const std::string& key, std::string* out) {
  if (ok() && Has(key)) ReadScalar(key, Find(key), out);
}

void YamlFields::Read(const std::string& key, std::vector<std::string>* out) {
  if (!ok() || !Has(key)) return;
  const YAML::Node node = Find(key);
  std::vector<std::string> texts;
  if (!node.IsSequence()) {
    texts.emplace_back();
    if (!ReadScalar(key, node, &texts.back())) return;
  } else {
    for (const auto& element : node) {
      texts.emplace_back();
      if (!ReadScalar(key, element, &texts.back())) return;
    }
  }
  if (texts.empty()) return Fail(key, "the list is empty");
  *out = std::move(texts);
}

bool YamlFields::ReadPlain(const std::string& key, absl::string_view expected,
                           std::string* out) {
  if (!ok() || !Has(key)) return false;
  const YAML::Node node = Find(key);
  // "!" is the tag of what is in quotes.
  if (!node.IsScalar() || node.Tag() == "!") {
    Fail(key, absl::StrCat("expected ", expected));
    return false;
  }
  *out = node.Scalar();
  return true;
}

void YamlFields::Read(const std::string& key, bool* out) {
  std::string text;
  if (!ReadPlain(key, "true or false", &text)) return;
  if (text != "true" && text != "false") {
    return Fail(key, "expected true or false");
  }
  *out = text == "true";
}

void YamlFields::Read(const std::string& key, int64_t min, int64_t max,
                      int64_t* out) {
  const std::string expected =
      absl::StrCat("an integer from ", min, " to ", max);
  std::string text;
  if (!ReadPlain(key, expected, &text)) return;
  int64_t number = 0;
  if (!absl::SimpleAtoi(text, &number) || number < min || number > max) {
    return Fail(key, absl::StrCat("expected ", expected));
  }
  *out = number;
}

void YamlFields::Read(const std::string& key, double min, double max,
                      double* out) {
  const std::string expected = absl::StrCat("a number from ", min, " to ", max);
  std::string text;
  if (!ReadPlain(key, expected, &text)) return;
  double number = 0;
  const bool inside = absl::SimpleAtod(text, &number) &&
                      std::isfinite(number) && number >= min && number <= max;
  if (!inside) return Fail(key, absl::StrCat("expected ", expected));
  *out = number;
}

}  // namespace onegrid::gateway
