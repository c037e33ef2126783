// How grammars are written for the library that matches them: the EBNF of
// llama.cpp and xgrammar.
#ifndef SERVICES_INFERENCE_GRAMMAR_GRAMMAR_TEXT_H_
#define SERVICES_INFERENCE_GRAMMAR_GRAMMAR_TEXT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "services/inference/grammar/char_set.h"

namespace onegrid::grammar {

// Most bytes of a grammar.
inline constexpr size_t kMaxGrammarBytes = size_t{512} << 10;
// Most times that something may be repeated, counts within counts multiplied.
inline constexpr int64_t kMaxRepeats = 2048;

// InvalidArgument (STRUCTURE_NOT_SUPPORTED).
absl::Status NotSupported(absl::string_view message);

// A text in quotes. `text` is UTF-8.
std::string Literal(absl::string_view text);

// One of the characters, which are not none.
std::string OneOf(const CharSet& characters);

// One of the expressions, of which there is at least one, in parentheses.
std::string AnyOf(const std::vector<std::string>& expressions);

// `expression`, which is one element, min..max times; max < 0: without end.
std::string Repeated(absl::string_view expression, int64_t min, int64_t max);

// The characters that a JSON string holds as they are.
const CharSet& JsonPlain();

// The letters after a backslash for those of the characters that have a short
// escape.
CharSet JsonEscapes(const CharSet& characters);

// What follows a string of JSON, as a rule for strings ends with it: it tells
// most tokens apart without what surrounds the string.
inline constexpr absl::string_view kAfterJsonString = " (= [ ]* [,:}\\]])";

}  // namespace onegrid::grammar

#endif  // SERVICES_INFERENCE_GRAMMAR_GRAMMAR_TEXT_H_
