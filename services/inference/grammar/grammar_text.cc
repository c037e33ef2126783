#include "services/inference/grammar/grammar_text.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "services/common/error_info.h"

namespace onegrid::grammar {
namespace {

// A character in a text or a class.
std::string Escaped(uint32_t character) {
  constexpr absl::string_view kSpecial = "\\\"[]^-";
  const char ascii = static_cast<char>(character);
  if (character < 0x80 && absl::ascii_isprint(ascii) &&
      !absl::StrContains(kSpecial, ascii)) {
    return std::string(1, ascii);
  }
  return character < 0x10000 ? absl::StrFormat("\\u%04X", character)
                             : absl::StrFormat("\\U%08X", character);
}

}  // namespace

absl::Status NotSupported(absl::string_view message) {
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "STRUCTURE_NOT_SUPPORTED", message);
}

std::string Literal(absl::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // Bytes above ASCII stay as they are.
    out += byte < 0x80 ? Escaped(byte) : std::string(1, text[i]);
  }
  return out + "\"";
}

std::string OneOf(const CharSet& characters) {
  std::string out = "[";
  for (const CharSet::Range& range : characters.ranges()) {
    out += Escaped(range.first);
    if (range.last > range.first) {
      absl::StrAppend(&out, "-", Escaped(range.last));
    }
  }
  return out + "]";
}

std::string AnyOf(const std::vector<std::string>& expressions) {
  return absl::StrCat("(", absl::StrJoin(expressions, " | "), ")");
}

std::string Repeated(absl::string_view expression, int64_t min, int64_t max) {
  if (min == 0 && max < 0) return absl::StrCat(expression, "*");
  if (min == 1 && max < 0) return absl::StrCat(expression, "+");
  if (min == 0 && max == 1) return absl::StrCat(expression, "?");
  if (min == 1 && max == 1) return std::string(expression);
  if (max < 0) return absl::StrCat(expression, "{", min, ",}");
  return absl::StrCat(expression, "{", min, ",", max, "}");
}

const CharSet& JsonPlain() {
  static const CharSet* const plain =
      new CharSet({{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}});
  return *plain;
}

CharSet JsonEscapes(const CharSet& characters) {
  constexpr absl::string_view kShort[] = {"\"\"", "\\\\", "\bb", "\ff",
                                          "\nn",  "\rr",  "\tt"};
  CharSet letters;
  for (const absl::string_view pair : kShort) {
    const auto letter = static_cast<unsigned char>(pair[1]);
    if (characters.Contains(static_cast<unsigned char>(pair[0]))) {
      letters.Add(letter, letter);
    }
  }
  return letters;
}

}  // namespace onegrid::grammar
