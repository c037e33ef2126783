#include "services/model/utf8.h"

#include <cstdint>

#include "absl/strings/strip.h"

namespace onegrid::model {
namespace {

// The length of the valid character at the front of `text`, 0 if none.
size_t CharacterLength(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  size_t length = 0;
  if (lead >= 0xC2 && lead <= 0xDF) length = 2;
  if (lead >= 0xE0 && lead <= 0xEF) length = 3;
  if (lead >= 0xF0 && lead <= 0xF4) length = 4;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const uint8_t second = byte(1);
  if (lead == 0xE0 && second < 0xA0) return 0;  // overlong
  if (lead == 0xED && second > 0x9F) return 0;  // surrogate
  if (lead == 0xF0 && second < 0x90) return 0;  // overlong
  if (lead == 0xF4 && second > 0x8F) return 0;  // above U+10FFFF
  return length;
}

// The character at the front of `text`, overlong or a surrogate maybe, and its
// length; 0 if there is none.
size_t LooseCharacter(absl::string_view text, uint32_t* code) {
  const uint8_t lead = static_cast<uint8_t>(text[0]);
  const size_t length = lead < 0xC0   ? 0
                        : lead < 0xE0 ? 2
                        : lead < 0xF0 ? 3
                        : lead < 0xF8 ? 4
                                      : 0;
  if (length == 0 || text.size() < length) return 0;
  *code = lead & (0xFFu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    if ((byte & 0xC0) != 0x80) return 0;
    *code = *code << 6 | (byte & 0x3F);
  }
  return *code <= 0x10FFFF ? length : 0;
}

// Appends the shortest form of `code`.
void AppendCharacter(uint32_t code, std::string* out) {
  if (code < 0x80) {
    *out += static_cast<char>(code);
    return;
  }
  const int tails = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  *out +=
      static_cast<char>((0xFF00 >> (tails + 1) & 0xFF) | code >> (6 * tails));
  for (int i = tails - 1; i >= 0; --i) {
    *out += static_cast<char>(0x80 | (code >> (6 * i) & 0x3F));
  }
}

constexpr absl::string_view kSpaces[] = {" ",  // The most frequent first.
                                         "\n",
                                         "\t",
                                         "\r",
                                         "\v",
                                         "\f",
                                         "\x1C",
                                         "\x1D",
                                         "\x1E",
                                         "\x1F",
                                         "\xC2\x85",
                                         "\xC2\xA0",
                                         "\xE1\x9A\x80",
                                         "\xE2\x80\x80",
                                         "\xE2\x80\x81",
                                         "\xE2\x80\x82",
                                         "\xE2\x80\x83",
                                         "\xE2\x80\x84",
                                         "\xE2\x80\x85",
                                         "\xE2\x80\x86",
                                         "\xE2\x80\x87",
                                         "\xE2\x80\x88",
                                         "\xE2\x80\x89",
                                         "\xE2\x80\x8A",
                                         "\xE2\x80\xA8",
                                         "\xE2\x80\xA9",
                                         "\xE2\x80\xAF",
                                         "\xE2\x81\x9F",
                                         "\xE3\x80\x80"};

bool StripOne(absl::string_view* text) {
  for (const absl::string_view space : kSpaces) {
    if (absl::ConsumePrefix(text, space) || absl::ConsumeSuffix(text, space)) {
      return true;
    }
  }
  return false;
}

}  // namespace

size_t ValidUtf8Prefix(absl::string_view text) {
  size_t valid = 0;
  while (valid < text.size()) {
    const size_t length = CharacterLength(text.substr(valid));
    if (length == 0) break;
    valid += length;
  }
  return valid;
}

std::string ReplaceInvalidUtf8(absl::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t valid = ValidUtf8Prefix(text);
    out.append(text.data(), valid);
    text.remove_prefix(valid);
    if (text.empty()) break;
    uint32_t code = 0xFFFD;
    const size_t length = LooseCharacter(text, &code);
    AppendCharacter(length > 0 ? code : 0xFFFD, &out);
    text.remove_prefix(length > 0 ? length : 1);
  }
  return out;
}

absl::string_view StripUnicodeSpace(absl::string_view text) {
  while (StripOne(&text)) {
  }
  return text;
}

}  // namespace onegrid::model
