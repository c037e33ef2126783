// A set of Unicode characters.
#ifndef SERVICES_INFERENCE_GRAMMAR_CHAR_SET_H_
#define SERVICES_INFERENCE_GRAMMAR_CHAR_SET_H_

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace onegrid::grammar {

// Ranges of code points; surrogates are never in it. Thread-compatible.
class CharSet {
 public:
  struct Range {
    uint32_t first;
    uint32_t last;
  };

  CharSet() = default;
  CharSet(std::initializer_list<Range> ranges);

  void Add(uint32_t first, uint32_t last);
  void Add(const CharSet& other);

  // All characters that are not in it.
  CharSet Complement() const;
  CharSet Intersect(const CharSet& other) const;

  bool empty() const { return ranges_.empty(); }
  bool Contains(uint32_t character) const;
  // Apart from each other, first to last.
  const std::vector<Range>& ranges() const { return ranges_; }

 private:
  std::vector<Range> ranges_;
};

}  // namespace onegrid::grammar

#endif  // SERVICES_INFERENCE_GRAMMAR_CHAR_SET_H_
