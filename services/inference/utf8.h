// UTF-8 over a byte stream that may be cut anywhere, as token pieces are.
#ifndef SERVICES_INFERENCE_UTF8_H_
#define SERVICES_INFERENCE_UTF8_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace onegrid::inference {

// Number of trailing bytes of `text`, 0..3, that begin a character whose rest
// is missing. Such bytes may still become valid when more arrive.
size_t IncompleteTailBytes(absl::string_view text);

// `text` with every maximal ill-formed part replaced by U+FFFD.
std::string ReplaceInvalidUtf8(absl::string_view text);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_UTF8_H_
