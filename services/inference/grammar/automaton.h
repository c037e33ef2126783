// Finite automata over characters, as grammars whose every rule is one state.
#ifndef SERVICES_INFERENCE_GRAMMAR_AUTOMATON_H_
#define SERVICES_INFERENCE_GRAMMAR_AUTOMATON_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "services/inference/grammar/char_set.h"
#include "services/inference/grammar/grammar_rules.h"

namespace onegrid::grammar {

// Most states of an automaton once it is deterministic.
inline constexpr size_t kMaxStates = 4200;

// Texts as a tree.
struct TextNode {
  enum class Kind { kSet, kSequence, kChoice, kRepeat };
  Kind kind = Kind::kSequence;
  CharSet set;                  // kSet: one of these characters
  std::vector<TextNode> parts;  // one of kRepeat; none of kSet
  int64_t min = 0;              // of kRepeat
  int64_t max = -1;             // of kRepeat; below 0 is without end

  static TextNode Set(CharSet set);
  static TextNode Sequence(std::vector<TextNode> parts);
  static TextNode Choice(std::vector<TextNode> parts);
  static TextNode Repeat(TextNode part, int64_t min, int64_t max);
};

// What the texts are part of.
enum class TextPlace {
  kWhole,       // they are the output
  kJsonString,  // they are what a JSON string says
};

// An expression for the texts, or for the JSON strings, in quotes, that say
// them. Deterministic, one rule a state: a token is told apart by the state
// alone, however the texts are repeated and chosen between. In a string a
// character below U+0020 is one that has a short escape. InvalidArgument
// (STRUCTURE_NOT_SUPPORTED): more than kMaxStates, no text, or errors of
// GrammarRules::Add.
absl::StatusOr<std::string> TextExpression(const TextNode& texts,
                                           TextPlace place,
                                           GrammarRules& rules);

}  // namespace onegrid::grammar

#endif  // SERVICES_INFERENCE_GRAMMAR_AUTOMATON_H_
