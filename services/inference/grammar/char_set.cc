#include "services/inference/grammar/char_set.h"

#include <algorithm>
#include <utility>

namespace onegrid::grammar {
namespace {

constexpr uint32_t kLast = 0x10FFFF;
constexpr CharSet::Range kSurrogates = {0xD800, 0xDFFF};

}  // namespace

CharSet::CharSet(std::initializer_list<Range> ranges) {
  for (const Range& range : ranges) Add(range.first, range.last);
}

void CharSet::Add(uint32_t first, uint32_t last) {
  last = std::min(last, kLast);
  if (first > last) return;
  if (first <= kSurrogates.last && last >= kSurrogates.first) {
    if (first < kSurrogates.first) Add(first, kSurrogates.first - 1);
    if (last > kSurrogates.last) Add(kSurrogates.last + 1, last);
    return;
  }
  std::vector<Range> merged;
  for (const Range& range : ranges_) {
    if (range.last + 1 < first || range.first > last + 1) {
      merged.push_back(range);
      continue;
    }
    first = std::min(first, range.first);
    last = std::max(last, range.last);
  }
  merged.push_back({first, last});
  std::sort(merged.begin(), merged.end(),
            [](const Range& a, const Range& b) { return a.first < b.first; });
  ranges_ = std::move(merged);
}

void CharSet::Add(const CharSet& other) {
  for (const Range& range : other.ranges_) Add(range.first, range.last);
}

CharSet CharSet::Complement() const {
  CharSet rest;
  uint32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.first > next) rest.Add(next, range.first - 1);
    next = range.last + 1;
  }
  rest.Add(next, kLast);
  return rest;
}

CharSet CharSet::Intersect(const CharSet& other) const {
  CharSet both;
  for (const Range& a : ranges_) {
    for (const Range& b : other.ranges_) {
      both.Add(std::max(a.first, b.first), std::min(a.last, b.last));
    }
  }
  return both;
}

bool CharSet::Contains(uint32_t character) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& range) {
    return range.first <= character && character <= range.last;
  });
}

}  // namespace onegrid::grammar
