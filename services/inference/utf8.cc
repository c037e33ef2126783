#include "services/inference/utf8.h"

#include <cstdint>

namespace onegrid::inference {
namespace {

constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";

// Length of the character a lead byte announces; 0 when it can lead none.
size_t LeadLength(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

// Whether `byte` may be byte number `index` (1..3) after `lead`. The second
// byte is narrower for four lead bytes: that is what rules out overlong forms,
// surrogates and values above U+10FFFF.
bool IsContinuation(uint8_t lead, size_t index, uint8_t byte) {
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  if (index == 1) {
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  }
  return byte >= low && byte <= high;
}

struct Scan {
  size_t bytes;   // at least 1
  bool complete;  // a whole character
  bool cut;       // well-formed so far, but the text ends inside it
};

Scan ScanCharacter(absl::string_view text) {
  const uint8_t lead = static_cast<uint8_t>(text[0]);
  const size_t length = LeadLength(lead);
  if (length == 0) return {1, false, false};
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, false, true};
    if (!IsContinuation(lead, i, static_cast<uint8_t>(text[i]))) {
      return {i, false, false};
    }
  }
  return {length, true, false};
}

}  // namespace

size_t IncompleteTailBytes(absl::string_view text) {
  for (size_t tail = 1; tail <= 3 && tail <= text.size(); ++tail) {
    const absl::string_view suffix = text.substr(text.size() - tail);
    if ((static_cast<uint8_t>(suffix[0]) & 0xC0) == 0x80) continue;
    const Scan scan = ScanCharacter(suffix);
    return scan.cut && scan.bytes == tail ? tail : 0;
  }
  return 0;
}

std::string ReplaceInvalidUtf8(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Scan scan = ScanCharacter(text);
    const absl::string_view good =
        scan.complete ? text.substr(0, scan.bytes) : kReplacement;
    out.append(good.data(), good.size());
    text.remove_prefix(scan.bytes);
  }
  return out;
}

}  // namespace onegrid::inference
