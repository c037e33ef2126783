#include "services/inference/grammar/string_grammar.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/common/error_info.h"
#include "services/inference/grammar/grammar_text.h"
#include "services/inference/grammar/regex_parser.h"

namespace onegrid::grammar {
namespace {

#define ONEGRID_DATE                                                  \
  "[12]\\d{3}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(" \
  "0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))"
#define ONEGRID_TIME                                                \
  "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-](0\\d|1[" \
  "0-3]):[0-5]\\d)"
#define ONEGRID_BYTE "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define ONEGRID_LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
#define ONEGRID_HOST ONEGRID_LABEL "(\\." ONEGRID_LABEL "){0,5}"

struct Format {
  absl::string_view name;
  absl::string_view pattern;
};

constexpr Format kFormats[] = {
    {"date", ONEGRID_DATE},
    {"time", ONEGRID_TIME},
    {"date-time", ONEGRID_DATE "T" ONEGRID_TIME},
    {"duration", "P(\\d{1,4}[YMWD]|T\\d{1,4}[HMS])"},
    {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
    {"ipv4", ONEGRID_BYTE "(\\." ONEGRID_BYTE "){3}"},
    {"hostname", ONEGRID_HOST},
    {"email",
     "[A-Za-z0-9_%+-]{1,20}(\\.[A-Za-z0-9_%+-]{1,20}){0,2}"
     "@" ONEGRID_HOST},
    {"uri", "https?://" ONEGRID_HOST "(:\\d{1,4})?(/[A-Za-z0-9._~-]{0,40}){0,8}"
            "(\\?[A-Za-z0-9._~=&-]{0,80})?(#[A-Za-z0-9._~-]{0,40})?"},
};

#undef ONEGRID_DATE
#undef ONEGRID_TIME
#undef ONEGRID_BYTE
#undef ONEGRID_LABEL
#undef ONEGRID_HOST

absl::StatusOr<std::string> Matching(absl::string_view pattern,
                                     GrammarRules& rules) {
  ASSIGN_OR_RETURN(const TextNode texts, ParseRegex(pattern));
  return TextExpression(texts, TextPlace::kJsonString, rules);
}

}  // namespace

absl::StatusOr<std::string> StringExpression(const StringBounds& bounds,
                                             GrammarRules& rules) {
  const bool has_length = bounds.min_length > 0 || bounds.max_length;
  if (int{bounds.pattern.has_value()} + int{bounds.format.has_value()} +
          int{has_length} >
      1) {
    return NotSupported(
        "two of pattern, format and lengths of a string together");
  }
  if (bounds.pattern) return Matching(*bounds.pattern, rules);
  if (bounds.format) {
    for (const Format& format : kFormats) {
      if (format.name == *bounds.format) return Matching(format.pattern, rules);
    }
    return NotSupported(absl::StrCat("the format ", *bounds.format));
  }
  if (!has_length) return "str";
  const int64_t max = bounds.max_length.value_or(-1);
  if (std::max(max, bounds.min_length) > kMaxRepeats) {
    return NotSupported(absl::StrCat("a length of ",
                                     std::max(max, bounds.min_length),
                                     " characters, at most ", kMaxRepeats));
  }
  if (bounds.max_length && max < bounds.min_length) {
    return NotSupported("a maxLength that is below minLength");
  }
  const TextNode any = TextNode::Set(CharSet().Complement());
  return TextExpression(TextNode::Repeat(any, bounds.min_length, max),
                        TextPlace::kJsonString, rules);
}

}  // namespace onegrid::grammar
