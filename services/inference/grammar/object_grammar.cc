#include "services/inference/grammar/object_grammar.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/common/error_info.h"
#include "services/inference/grammar/grammar_text.h"

namespace onegrid::grammar {
namespace {

constexpr absl::string_view kComma = "\",\" \" \"? ";

std::string Pair(absl::string_view key, absl::string_view value) {
  return absl::StrCat(key, " \":\" \" \"? ", value);
}

// What a string of JSON is written as.
std::string JsonText(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false,
                                   nlohmann::json::error_handler_t::replace);
}

// Names that are left out, by their next character.
struct NameTree {
  bool ends = false;
  std::map<std::string, NameTree> next;
};

absl::StatusOr<std::string> OtherThan(const NameTree& tree,
                                      GrammarRules& rules) {
  std::vector<std::string> choices;
  if (!tree.ends) choices.push_back(Literal("\""));
  CharSet known;
  for (const auto& [character, below] : tree.next) {
    uint32_t code = static_cast<unsigned char>(character[0]);
    if (character.size() > 1) {
      code &= 0x7F >> character.size();
      for (size_t i = 1; i < character.size(); ++i) {
        code = code << 6 | (character[i] & 0x3F);
      }
    }
    known.Add(code, code);
    ASSIGN_OR_RETURN(const std::string rest, OtherThan(below, rules));
    choices.push_back(absl::StrCat(Literal(character), " ", rest));
  }
  choices.push_back(
      absl::StrCat(OneOf(JsonPlain().Intersect(known.Complement())), " key"));
  return rules.Add(AnyOf(choices));
}

}  // namespace

absl::StatusOr<std::string> OtherKey(const std::vector<std::string>& names,
                                     GrammarRules& rules) {
  NameTree tree;
  size_t characters = 0;
  for (const std::string& name : names) {
    // A name with an escape is none of those without.
    if (JsonText(name).size() != name.size() + 2) continue;
    if (name.size() > kMaxNameBytes) {
      return NotSupported(absl::StrCat("additionalProperties beside a name of ",
                                       name.size(), " bytes, at most ",
                                       kMaxNameBytes));
    }
    NameTree* place = &tree;
    for (size_t i = 0; i < name.size();) {
      size_t length = 1;
      while (i + length < name.size() && (name[i + length] & 0xC0) == 0x80) {
        ++length;
      }
      place = &place->next[name.substr(i, length)];
      i += length;
      ++characters;
    }
    place->ends = true;
  }
  if (characters > kMaxNameCharacters) {
    return NotSupported(absl::StrCat("additionalProperties beside names of ",
                                     characters, " characters, at most ",
                                     kMaxNameCharacters));
  }
  ASSIGN_OR_RETURN(const std::string rest, OtherThan(tree, rules));
  return absl::StrCat(Literal("\""), " ", rest);
}

absl::StatusOr<std::string> ObjectExpression(const ObjectShape& shape,
                                             GrammarRules& rules) {
  const std::vector<Member>& members = shape.members;
  const auto pair = [&](size_t i) {
    return Pair(Literal(JsonText(members[i].name)), members[i].value);
  };
  const size_t optional = static_cast<size_t>(
      std::find_if(members.begin(), members.end(),
                   [](const Member& member) { return member.required; }) -
      members.begin());
  // What follows member i - 1, from the last i down.
  std::string after;
  if (shape.other_key) {
    after = absl::StrCat("(", kComma, Pair(*shape.other_key, shape.other_value),
                         ")*");
  }
  std::vector<std::string> first;  // what an object may begin with
  if (shape.other_key && optional == members.size()) {
    first.push_back(
        absl::StrCat(Pair(*shape.other_key, shape.other_value), " ", after));
  }
  for (size_t i = members.size(); i-- > 0;) {
    if (i <= optional) {
      // Several beginnings lead here.
      ASSIGN_OR_RETURN(after, rules.Add(after.empty() ? Literal("") : after));
      first.push_back(absl::StrCat(pair(i), " ", after));
    }
    const std::string piece = absl::StrCat(kComma, pair(i));
    after = members[i].required ? absl::StrCat(piece, " ", after)
                                : absl::StrCat("(", piece, ")? ", after);
  }
  if (first.empty()) return Literal("{}");
  const bool may_be_empty = optional == members.size() && !shape.one_at_least;
  std::reverse(first.begin(), first.end());
  return absl::StrCat("(\"{\" ", AnyOf(first), may_be_empty ? "?" : "",
                      " \"}\")");
}

absl::StatusOr<std::string> ArrayExpression(
    absl::Span<const std::string> first, const std::optional<std::string>& rest,
    int64_t min, std::optional<int64_t> max) {
  if (std::max(min, max.value_or(0)) > kMaxRepeats) {
    return NotSupported(absl::StrCat("an array of ",
                                     std::max(min, max.value_or(0)),
                                     " items, at most ", kMaxRepeats));
  }
  const auto known = static_cast<int64_t>(first.size());
  if (!rest || (max && *max < known))
    max = std::min(max.value_or(known), known);
  if (max && *max < min) {
    return NotSupported("an array of fewer items than it has to have");
  }
  // From the last to the first: each may be the last one from min on.
  std::string tail;
  if (rest && (!max || *max > known)) {
    const int64_t more = max ? *max - std::max<int64_t>(known, 1) : -1;
    const int64_t needed =
        std::max<int64_t>(0, min - std::max<int64_t>(known, 1));
    const std::string next = absl::StrCat("(", kComma, *rest, ")");
    if (more != 0) tail = Repeated(next, needed, more);
    if (known == 0) tail = absl::StrCat(*rest, " ", tail);
  }
  for (int64_t i = std::min(known, max.value_or(known)); i-- > 0;) {
    if (!tail.empty() && min <= i + 1) tail = absl::StrCat("(", tail, ")?");
    tail = absl::StrCat(i > 0 ? kComma : "", first[i], " ", tail);
  }
  if (tail.empty()) return Literal("[]");
  return absl::StrCat("(\"[\" (", tail, ")", min == 0 ? "?" : "", " \"]\")");
}

}  // namespace onegrid::grammar
