#include "services/inference/grammar/grammar_rules.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "services/common/error_info.h"
#include "services/inference/grammar/grammar_text.h"
#include "services/inference/grammar/number_grammar.h"

namespace onegrid::grammar {
namespace {

// A string's rule holds its closing quotation mark and names what comes after
// it, so that most tokens are told apart without what surrounds the string.
constexpr absl::string_view kJson = R"(
hex ::= [0-9a-fA-F]
code ::= [0-9a-cA-Ce-fE-F] hex hex hex | [dD] [0-7] hex hex | [dD] [89abAB] hex hex "\\u" [dD] [c-fC-F] hex hex
escape ::= ["\\/bfnrt] | "u" code
str ::= "\"" rest
rest ::= "\"" | plain rest | "\\" escape rest (= [ ]* [,:}\]])
key ::= "\"" | plain key (= ":")
pair ::= str ":" " "? any
obj ::= "{" (pair ("," " "? pair)*)? "}"
arr ::= "[" (any ("," " "? any)*)? "]"
any ::= obj | arr | str | num | "true" | "false" | "null"
)";

}  // namespace

std::string GrammarRules::Declare() { return absl::StrCat("r", count_++); }

absl::Status GrammarRules::Define(const std::string& name,
                                  absl::string_view expression, Needs needs) {
  absl::StrAppend(&text_, name, " ::= ", expression, "\n");
  needs_[name] = std::move(needs);
  if (text_.size() <= kMaxGrammarBytes) return absl::OkStatus();
  return NotSupported(
      absl::StrCat("a structure that takes a grammar of more than ",
                   kMaxGrammarBytes, " bytes"));
}

absl::StatusOr<std::string> GrammarRules::Add(absl::string_view expression,
                                              Needs needs) {
  const std::string name = Declare();
  RETURN_IF_ERROR(Define(name, expression, std::move(needs)));
  return name;
}

absl::Status GrammarRules::CheckFinite() const {
  std::map<std::string, bool> finite;
  for (const auto& [name, needs] : needs_) finite[name] = false;
  // Each rule by what it waits for; those of the library wait for nothing.
  std::map<std::string, std::vector<std::string>> waiting;
  std::vector<std::string> changed;
  for (const auto& [name, needs] : needs_) {
    changed.push_back(name);
    for (const auto& rules : needs) {
      for (const std::string& rule : rules) waiting[rule].push_back(name);
    }
  }
  const auto is_finite = [&](const std::string& name) {
    const auto found = finite.find(name);
    return found == finite.end() || found->second;
  };
  size_t left = needs_.size();
  while (!changed.empty()) {
    const std::string name = std::move(changed.back());
    changed.pop_back();
    const Needs& needs = needs_.at(name);
    const bool has_text =
        std::any_of(needs.begin(), needs.end(), [&](const auto& rules) {
          return std::all_of(rules.begin(), rules.end(), is_finite);
        });
    if (!has_text || finite[name]) continue;
    finite[name] = true;
    --left;
    for (const std::string& rule : waiting[name]) changed.push_back(rule);
  }
  if (left == 0) return absl::OkStatus();
  return NotSupported(
      "a schema that requires itself, so that no value of it ever ends");
}

absl::StatusOr<std::string> GrammarRules::Text(
    absl::string_view expression) const {
  RETURN_IF_ERROR(CheckFinite());
  ASSIGN_OR_RETURN(const std::string number, NumberExpression({}, false));
  ASSIGN_OR_RETURN(const std::string integer, NumberExpression({}, true));
  return absl::StrCat(
      "root ::= ", expression, "\n", text_, "num ::= ", number,
      "\nint ::= ", integer,
      absl::StrReplaceAll(kJson, {{"plain", OneOf(JsonPlain())}}));
}

}  // namespace onegrid::grammar
