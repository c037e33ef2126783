// Regular expressions as sets of texts.
#ifndef SERVICES_INFERENCE_GRAMMAR_REGEX_PARSER_H_
#define SERVICES_INFERENCE_GRAMMAR_REGEX_PARSER_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/inference/grammar/automaton.h"

namespace onegrid::grammar {

// Most bytes of a regular expression, and groups within groups.
inline constexpr size_t kMaxRegexBytes = size_t{8} << 10;
inline constexpr int kMaxRegexDepth = 48;

// The texts that match `pattern` as a whole, be it anchored or not. What Python
// and ECMAScript mean alike: classes, groups, alternatives, greedy and lazy
// counts; "." is any character but line ends; \d, \w and \s are ASCII, \D and
// \W what else ASCII has, \S all but the spaces of Unicode. InvalidArgument
// (STRUCTURE_NOT_SUPPORTED), naming the place: longer or deeper than the
// limits, repeated more than kMaxRepeats times, wrong, or what does not
// describe a set of texts by itself (assertions other than anchors at the ends,
// backreferences, flags, properties of characters).
absl::StatusOr<TextNode> ParseRegex(absl::string_view pattern);

}  // namespace onegrid::grammar

#endif  // SERVICES_INFERENCE_GRAMMAR_REGEX_PARSER_H_
