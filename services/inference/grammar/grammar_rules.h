// The rules of a grammar for JSON as they are written.
#ifndef SERVICES_INFERENCE_GRAMMAR_GRAMMAR_RULES_H_
#define SERVICES_INFERENCE_GRAMMAR_GRAMMAR_RULES_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace onegrid::grammar {

// Rules that are always there: "ws", white space of one kind and bounded, so
// that no model writes it for ever; "char", what a JSON string has for one
// character; "str", "int", "num", "obj", "arr" and "any", JSON values; "key", a
// member's name without escapes from its second character on.
// Thread-compatible.
class GrammarRules {
 public:
  // What a text of the rule cannot do without: all rules of one of these lists.
  using Needs = std::vector<std::vector<std::string>>;

  // A name for a rule that is defined later.
  std::string Declare();
  // InvalidArgument (STRUCTURE_NOT_SUPPORTED): more than kMaxGrammarBytes.
  absl::Status Define(const std::string& name, absl::string_view expression,
                      Needs needs = Needs(1));
  // Declares and defines.
  absl::StatusOr<std::string> Add(absl::string_view expression,
                                  Needs needs = Needs(1));

  // The grammar whose texts are those of `expression`. InvalidArgument
  // (STRUCTURE_NOT_SUPPORTED): some rule has no finite text.
  absl::StatusOr<std::string> Text(absl::string_view expression) const;

 private:
  absl::Status CheckFinite() const;

  std::string text_;
  int count_ = 0;
  std::map<std::string, Needs> needs_;
};

}  // namespace onegrid::grammar

#endif  // SERVICES_INFERENCE_GRAMMAR_GRAMMAR_RULES_H_
