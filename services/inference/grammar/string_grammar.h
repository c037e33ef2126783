// JSON strings that a schema describes as grammars.
#ifndef SERVICES_INFERENCE_GRAMMAR_STRING_GRAMMAR_H_
#define SERVICES_INFERENCE_GRAMMAR_STRING_GRAMMAR_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "services/inference/grammar/grammar_rules.h"

namespace onegrid::grammar {

struct StringBounds {
  // Of the whole string, though a schema would be content with a part.
  std::optional<std::string> pattern = std::nullopt;
  std::optional<std::string> format = std::nullopt;
  int64_t min_length = 0;
  std::optional<int64_t> max_length = std::nullopt;
};

// An expression for the strings, in quotes, within `bounds`. Formats are dates
// of the years 1000 to 2999, times with an offset, the two together, durations
// of one unit, uuid, ipv4, host names, mail addresses and web addresses of
// ASCII. InvalidArgument (STRUCTURE_NOT_SUPPORTED): another format, two of
// pattern, format and lengths together, no such string, a length above
// kMaxRepeats, or what ParseRegex and TextExpression refuse.
absl::StatusOr<std::string> StringExpression(const StringBounds& bounds,
                                             GrammarRules& rules);

}  // namespace onegrid::grammar

#endif  // SERVICES_INFERENCE_GRAMMAR_STRING_GRAMMAR_H_
