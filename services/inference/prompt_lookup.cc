#include "services/inference/prompt_lookup.h"

#include <algorithm>

namespace onegrid::inference {

std::vector<int32_t> LookUpContinuation(absl::Span<const int32_t> tokens,
                                        int most) {
  const auto size = static_cast<int64_t>(tokens.size());
  int best = kShortestMatch - 1;
  int64_t follows = 0;
  // `next` is where an earlier occurrence of the end would go on.
  for (int64_t next = size - 1; next >= kShortestMatch; --next) {
    int length = 0;
    while (length < kLongestMatch && length < next &&
           tokens[static_cast<size_t>(next - 1 - length)] ==
               tokens[static_cast<size_t>(size - 1 - length)]) {
      ++length;
    }
    if (length <= best) continue;
    best = length;
    follows = next;
    if (best == kLongestMatch) break;
  }
  if (follows == 0 || most <= 0) return {};
  const auto from = tokens.begin() + follows;
  return {from, from + std::min<int64_t>(most, size - follows)};
}

}  // namespace onegrid::inference
