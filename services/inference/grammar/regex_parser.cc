#include "services/inference/grammar/regex_parser.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/inference/grammar/char_set.h"
#include "services/inference/grammar/grammar_text.h"
#include "services/model/utf8.h"

namespace onegrid::grammar {
namespace {

constexpr uint32_t kAsciiLast = 0x7F;

const CharSet& Digits() {
  static const CharSet* const set = new CharSet({{'0', '9'}});
  return *set;
}

const CharSet& WordCharacters() {
  static const CharSet* const set =
      new CharSet({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
  return *set;
}

const CharSet& AsciiSpaces() {
  static const CharSet* const set = new CharSet({{'\t', '\r'}, {' ', ' '}});
  return *set;
}

// What either dialect takes for a space.
const CharSet& AllSpaces() {
  static const CharSet* const set = new CharSet({{'\t', '\r'},
                                                 {0x1C, ' '},
                                                 {0x85, 0x85},
                                                 {0xA0, 0xA0},
                                                 {0x1680, 0x1680},
                                                 {0x2000, 0x200A},
                                                 {0x2028, 0x2029},
                                                 {0x202F, 0x202F},
                                                 {0x205F, 0x205F},
                                                 {0x3000, 0x3000},
                                                 {0xFEFF, 0xFEFF}});
  return *set;
}

CharSet AsciiWithout(const CharSet& set) {
  return set.Complement().Intersect({{0, kAsciiLast}});
}

CharSet WithAllBeyondAscii(CharSet set) {
  set.Add(CharSet({{0, kAsciiLast}}).Complement());
  return set;
}

// A part of a pattern.
struct Part {
  TextNode node;
  // Characters at most, what is without end being there once.
  int64_t size = 0;
};

class Parser {
 public:
  explicit Parser(absl::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<Part> Parse();

 private:
  absl::StatusOr<Part> ParseAlternatives(int depth);
  absl::StatusOr<Part> ParseSequence(int depth);
  absl::StatusOr<Part> ParseGroup(int depth);
  absl::StatusOr<Part> ParseAtom(int depth);
  // A count after `part`, if there is one.
  absl::StatusOr<Part> ParseCount(Part part);
  // "{m}", "{m,}" or "{m,n}"; max is -1 without end.
  absl::Status ParseBounds(int64_t* min, int64_t* max);
  absl::StatusOr<CharSet> ParseClass();
  // After a backslash. `negated`: in a class of what is not to be, where an
  // escape stands for all that either dialect takes for it.
  absl::StatusOr<CharSet> ParseEscape(bool negated);
  absl::StatusOr<uint32_t> ParseHex(int digits);
  absl::StatusOr<int64_t> ParseNumber();

  bool AtEnd() const { return place_ == pattern_.size(); }
  char Peek() const { return AtEnd() ? '\0' : pattern_[place_]; }
  bool Eat(absl::string_view text) {
    if (pattern_.substr(place_, text.size()) != text) return false;
    place_ += text.size();
    return true;
  }
  // The next character, of one byte or more. Not at the end.
  uint32_t NextCharacter();
  absl::Status Wrong(absl::string_view what) const;

  const absl::string_view pattern_;
  size_t place_ = 0;
};

absl::Status Parser::Wrong(absl::string_view what) const {
  return NotSupported(absl::StrCat("the regular expression has ", what,
                                   " at byte ", place_, ", not supported"));
}

uint32_t Parser::NextCharacter() {
  const auto lead = static_cast<unsigned char>(pattern_[place_++]);
  if (lead < 0x80) return lead;
  const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
  uint32_t character = lead & (0x3F >> more);
  for (int i = 0; i < more && !AtEnd(); ++i) {
    character = character << 6 | (pattern_[place_++] & 0x3F);
  }
  return character;
}

Part PartOf(const CharSet& set) { return {TextNode::Set(set), 1}; }

absl::StatusOr<Part> Parser::Parse() {
  ASSIGN_OR_RETURN(Part part, ParseAlternatives(0));
  if (!AtEnd()) return Wrong("a parenthesis that closes nothing");
  return part;
}

absl::StatusOr<Part> Parser::ParseAlternatives(int depth) {
  if (depth > kMaxRegexDepth) {
    return Wrong(absl::StrCat("more than ", kMaxRegexDepth,
                              " groups within each other"));
  }
  std::vector<TextNode> choices;
  int64_t size = 0;
  do {
    ASSIGN_OR_RETURN(Part part, ParseSequence(depth));
    choices.push_back(std::move(part.node));
    size += part.size;
  } while (Eat("|"));
  if (choices.size() == 1) return Part{std::move(choices.front()), size};
  return Part{TextNode::Choice(std::move(choices)), size};
}

absl::StatusOr<Part> Parser::ParseSequence(int depth) {
  std::vector<TextNode> parts;
  int64_t size = 0;
  // Anchors at the ends of the whole say nothing new.
  if (depth == 0) Eat("^");
  while (!AtEnd() && Peek() != '|' && Peek() != ')') {
    const absl::string_view rest = pattern_.substr(place_);
    if (depth == 0 && (rest == "$" || rest.substr(0, 2) == "$|")) {
      ++place_;
      break;
    }
    ASSIGN_OR_RETURN(Part part, ParseAtom(depth));
    ASSIGN_OR_RETURN(part, ParseCount(std::move(part)));
    size += part.size;
    parts.push_back(std::move(part.node));
  }
  return Part{TextNode::Sequence(std::move(parts)), size};
}

absl::StatusOr<Part> Parser::ParseGroup(int depth) {
  if (Eat("?")) {
    if (Eat("P<") || (pattern_.substr(place_, 2) != "<=" &&
                      pattern_.substr(place_, 2) != "<!" && Eat("<"))) {
      while (absl::ascii_isalnum(Peek()) || Peek() == '_') ++place_;
      if (!Eat(">")) return Wrong("a group whose name does not end");
    } else if (!Eat(":")) {
      return Wrong("an assertion, a flag or another kind of group");
    }
  }
  ASSIGN_OR_RETURN(Part part, ParseAlternatives(depth + 1));
  if (!Eat(")")) return Wrong("a group that is not closed");
  return part;
}

absl::StatusOr<Part> Parser::ParseAtom(int depth) {
  if (Eat("(")) return ParseGroup(depth);
  if (Eat("[")) {
    ASSIGN_OR_RETURN(const CharSet set, ParseClass());
    return PartOf(set);
  }
  if (Eat("\\")) {
    ASSIGN_OR_RETURN(const CharSet set, ParseEscape(/*negated=*/false));
    return PartOf(set);
  }
  if (Eat(".")) {
    return PartOf(
        CharSet({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}).Complement());
  }
  switch (Peek()) {
    case '^':
    case '$':
      return Wrong("an anchor that is not at its end");
    case '*':
    case '+':
    case '?':
    case '{':
    case '}':
    case ']':
      return Wrong(absl::StrCat("\"", pattern_.substr(place_, 1),
                                "\" where a character is expected"));
    default:
      break;
  }
  const uint32_t character = NextCharacter();
  return PartOf(CharSet({{character, character}}));
}

absl::StatusOr<int64_t> Parser::ParseNumber() {
  if (!absl::ascii_isdigit(Peek())) return Wrong("a count without a number");
  int64_t number = 0;
  while (absl::ascii_isdigit(Peek())) {
    number = number * 10 + (pattern_[place_++] - '0');
    if (number > kMaxRepeats) {
      return Wrong(absl::StrCat("a count above ", kMaxRepeats));
    }
  }
  return number;
}

absl::Status Parser::ParseBounds(int64_t* min, int64_t* max) {
  ASSIGN_OR_RETURN(*min, ParseNumber());
  *max = *min;
  if (Eat(",")) {
    *max = -1;
    if (Peek() != '}') {
      ASSIGN_OR_RETURN(*max, ParseNumber());
      if (*max < *min) return Wrong("a count whose ends are the wrong way");
    }
  }
  if (!Eat("}")) return Wrong("a count that does not end");
  return absl::OkStatus();
}

absl::StatusOr<Part> Parser::ParseCount(Part part) {
  int64_t min = 0;
  int64_t max = -1;
  if (Eat("*")) {
  } else if (Eat("+")) {
    min = 1;
  } else if (Eat("?")) {
    max = 1;
  } else if (Eat("{")) {
    RETURN_IF_ERROR(ParseBounds(&min, &max));
  } else {
    return part;
  }
  Eat("?");  // Lazy counts match the same texts.
  if (Peek() == '+' || Peek() == '*' || Peek() == '{') {
    return Wrong("a count after a count");
  }
  // The empty text, however often, is the empty text; and it has no size.
  if (max == 0 || part.size == 0) return Part();
  part.size *= std::max<int64_t>(1, std::max(min, max));
  if (part.size > kMaxRepeats) {
    return Wrong(absl::StrCat("counts that come to more than ", kMaxRepeats));
  }
  part.node = TextNode::Repeat(std::move(part.node), min, max);
  return part;
}

absl::StatusOr<CharSet> Parser::ParseClass() {
  const bool negated = Eat("^");
  if (Peek() == ']') return Wrong("a class that begins with \"]\"");
  CharSet set;
  while (!Eat("]")) {
    if (AtEnd()) return Wrong("a class that is not closed");
    CharSet first;
    if (Eat("\\")) {
      ASSIGN_OR_RETURN(first, ParseEscape(negated));
    } else {
      const uint32_t character = NextCharacter();
      first = CharSet({{character, character}});
    }
    const bool is_range = Peek() == '-' && place_ + 1 < pattern_.size() &&
                          pattern_[place_ + 1] != ']';
    if (is_range) {
      ++place_;
      CharSet last;
      if (Eat("\\")) {
        ASSIGN_OR_RETURN(last, ParseEscape(negated));
      } else {
        const uint32_t character = NextCharacter();
        last = CharSet({{character, character}});
      }
      const auto single = [](const CharSet& ends) {
        return ends.ranges().size() == 1 &&
               ends.ranges()[0].first == ends.ranges()[0].last;
      };
      if (!single(first) || !single(last) ||
          first.ranges()[0].first > last.ranges()[0].first) {
        return Wrong("a range of a class with wrong ends");
      }
      first.Add(first.ranges()[0].first, last.ranges()[0].first);
    }
    set.Add(first);
  }
  if (negated) set = set.Complement();
  if (set.empty()) return Wrong("a class of no characters");
  return set;
}

absl::StatusOr<uint32_t> Parser::ParseHex(int digits) {
  uint32_t value = 0;
  for (int i = 0; i < digits; ++i) {
    if (!absl::ascii_isxdigit(Peek())) return Wrong("a wrong hexadecimal code");
    const char digit = absl::ascii_tolower(pattern_[place_++]);
    value = value * 16 + (digit <= '9' ? digit - '0' : digit - 'a' + 10);
  }
  if (value >= 0xD800 && value <= 0xDFFF) return Wrong("a surrogate");
  return value;
}

absl::StatusOr<CharSet> Parser::ParseEscape(bool negated) {
  if (AtEnd()) return Wrong("a backslash at its end");
  const char letter = pattern_[place_++];
  switch (letter) {
    case 'd':
      return negated ? WithAllBeyondAscii(Digits()) : Digits();
    case 'w':
      return negated ? WithAllBeyondAscii(WordCharacters()) : WordCharacters();
    case 's':
      return negated ? AllSpaces() : AsciiSpaces();
    case 'D':
      return negated ? Digits().Complement() : AsciiWithout(Digits());
    case 'W':
      return negated ? WordCharacters().Complement()
                     : AsciiWithout(WordCharacters());
    case 'S':
      return (negated ? AsciiSpaces() : AllSpaces()).Complement();
    case ' ':
      return CharSet({{' ', ' '}});
    case 'n':
      return CharSet({{'\n', '\n'}});
    case 'r':
      return CharSet({{'\r', '\r'}});
    case 't':
      return CharSet({{'\t', '\t'}});
    case 'f':
      return CharSet({{'\f', '\f'}});
    case 'v':
      return CharSet({{'\v', '\v'}});
    case 'x':
    case 'u': {
      ASSIGN_OR_RETURN(const uint32_t code, ParseHex(letter == 'x' ? 2 : 4));
      return CharSet({{code, code}});
    }
    default:
      break;
  }
  if (!absl::ascii_ispunct(letter)) {
    --place_;
    return Wrong(
        absl::StrCat("the escape of \"", absl::string_view(&letter, 1), "\""));
  }
  const auto code = static_cast<unsigned char>(letter);
  return CharSet({{code, code}});
}

}  // namespace

absl::StatusOr<TextNode> ParseRegex(absl::string_view pattern) {
  if (pattern.size() > kMaxRegexBytes) {
    return NotSupported(absl::StrCat("a regular expression of ", pattern.size(),
                                     " bytes, at most ", kMaxRegexBytes));
  }
  if (!model::IsValidUtf8(pattern)) {
    return NotSupported("a regular expression that is not UTF-8");
  }
  ASSIGN_OR_RETURN(Part part, Parser(pattern).Parse());
  return std::move(part.node);
}

}  // namespace onegrid::grammar
