// Turns generated token pieces into text that may be shown at once.
#ifndef SERVICES_INFERENCE_TEXT_STREAM_H_
#define SERVICES_INFERENCE_TEXT_STREAM_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace onegrid::inference {

// Holds back the bytes that could still turn out to be part of a stop string
// or of an unfinished UTF-8 character; everything else is released as soon as
// it arrives. Released text never contains a stop string and is always
// well-formed (ill-formed bytes become U+FFFD).
// Thread-compatible. Append costs O(held bytes * stop bytes).
class TextStream {
 public:
  // Empty stop strings are ignored.
  explicit TextStream(std::vector<std::string> stops);

  // Adds the raw bytes of one token; returns what may be shown now. After a
  // stop string was found everything is swallowed.
  std::string Append(absl::string_view piece);

  // The end without a stop string: returns what was held back.
  std::string Finish();

  bool stopped() const { return stopped_; }
  // The stop string that begins first in the output; of two that begin at the
  // same byte, the one given first. Empty until stopped().
  const std::string& stop_string() const { return stop_string_; }

 private:
  bool FindStop(size_t* position);
  size_t HeldBytes() const;

  std::vector<std::string> stops_;
  std::string pending_;
  bool stopped_ = false;
  std::string stop_string_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_TEXT_STREAM_H_
