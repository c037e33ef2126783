// JSON objects and arrays as grammars.
#ifndef SERVICES_INFERENCE_GRAMMAR_OBJECT_GRAMMAR_H_
#define SERVICES_INFERENCE_GRAMMAR_OBJECT_GRAMMAR_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/inference/grammar/grammar_rules.h"

namespace onegrid::grammar {

// Of the names that others are told from: most characters of all together, and
// bytes of one.
inline constexpr size_t kMaxNameCharacters = 4096;
inline constexpr size_t kMaxNameBytes = 256;

struct Member {
  std::string name;
  std::string value;  // a rule
  bool required = false;
};

struct ObjectShape {
  std::vector<Member> members;  // in the order in which they are written
  // What any number of others after them are: a key, in quotes, and a rule.
  std::optional<std::string> other_key = std::nullopt;
  std::string other_value;
  bool one_at_least = false;  // if there are no members
};

// An expression for the objects. Errors of GrammarRules::Add.
absl::StatusOr<std::string> ObjectExpression(const ObjectShape& shape,
                                             GrammarRules& rules);

// An expression for the names, in quotes and without escapes, that are none of
// `names`. InvalidArgument (STRUCTURE_NOT_SUPPORTED): they have more than
// those two limits; errors of GrammarRules::Add.
absl::StatusOr<std::string> OtherKey(const std::vector<std::string>& names,
                                     GrammarRules& rules);

// An expression for the arrays of `first`, one value after the other, of which
// there are `min` to `max` (none: without end), and what may follow them,
// `rest`. Without `rest` there are only the first. InvalidArgument
// (STRUCTURE_NOT_SUPPORTED): there are none, or a count above kMaxRepeats.
absl::StatusOr<std::string> ArrayExpression(
    absl::Span<const std::string> first, const std::optional<std::string>& rest,
    int64_t min, std::optional<int64_t> max);

}  // namespace onegrid::grammar

#endif  // SERVICES_INFERENCE_GRAMMAR_OBJECT_GRAMMAR_H_
