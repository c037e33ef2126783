#ifndef SERVICES_MODEL_UTF8_H_
#define SERVICES_MODEL_UTF8_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace onegrid::model {

// The length in bytes of the longest prefix of `text` that is UTF-8 (RFC 3629:
// no overlong forms, no surrogates, nothing above U+10FFFF).
size_t ValidUtf8Prefix(absl::string_view text);

inline bool IsValidUtf8(absl::string_view text) {
  return ValidUtf8Prefix(text) == text.size();
}

// `text` as UTF-8, as llama.cpp reads it: bytes that are part of no character
// become U+FFFD each, overlong forms the character that they stand for.
// Surrogates stay, which byte tokens can hold. Above U+10FFFF, where llama.cpp
// gives up, are no characters.
std::string ReplaceInvalidUtf8(absl::string_view text);

// `text`, which must be UTF-8, without the white space at its ends: the
// characters that Unicode and Python's str.strip take for white space.
absl::string_view StripUnicodeSpace(absl::string_view text);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_UTF8_H_
