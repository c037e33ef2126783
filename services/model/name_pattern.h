#ifndef SERVICES_MODEL_NAME_PATTERN_H_
#define SERVICES_MODEL_NAME_PATTERN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace onegrid::model {

// A pattern on tensor names: "blk.{9-17}.ffn_*.weight". `*` stands for any run
// of characters, the empty one too; {9-17} for a whole number from 9 to 17 and
// {9} for that number; every other character for itself. Immutable after Parse;
// matching takes time in the product of the lengths at most.
class NamePattern {
 public:
  // InvalidArgument: an empty pattern, or braces that do not hold a number or a
  // rising range of numbers.
  static absl::StatusOr<NamePattern> Parse(absl::string_view text);

  const std::string& text() const { return text_; }
  // True if the whole name fits.
  bool Matches(absl::string_view name) const;

 private:
  enum class Kind { kCharacter, kRun, kNumber };
  struct Element {
    Kind kind;
    char character = 0;  // kCharacter
    int64_t first = 0;   // kNumber, both ends included
    int64_t last = 0;
  };

  // Characters that the element, not a kRun, takes at `at`; -1 if it does not
  // fit there.
  static int64_t Taken(const Element& element, absl::string_view name,
                       size_t at);

  std::string text_;
  std::vector<Element> elements_;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_NAME_PATTERN_H_
