#include "services/common/json_depth.h"

#include <cstddef>
#include <vector>

namespace onegrid::common {

namespace {

// Calls visit(c) for each character outside of strings, until it says false.
template <typename Visit>
void ForEachOutsideStrings(absl::string_view text, Visit visit) {
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (!visit(c)) {
      return;
    }
  }
}

}  // namespace

bool NestsDeeperThan(absl::string_view text, int depth_max) {
  int depth = 0;
  ForEachOutsideStrings(text, [&](char c) {
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    return depth <= depth_max;
  });
  return depth > depth_max;
}

bool HasWiderObject(absl::string_view text, int members_max) {
  // Members of what is open; those of lists do not count.
  constexpr int kList = -1;
  std::vector<int> open = {kList};
  bool found = false;
  ForEachOutsideStrings(text, [&](char c) {
    if (c == '[') open.push_back(kList);
    if (c == '{') open.push_back(1);
    if ((c == ']' || c == '}') && open.size() > 1) open.pop_back();
    if (c == ',' && open.back() != kList) ++open.back();
    found = open.back() > members_max;
    return !found;
  });
  return found;
}

}  // namespace onegrid::common
