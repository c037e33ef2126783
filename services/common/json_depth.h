// How deep a JSON text nests and how wide it is, found without parsing it.
#ifndef SERVICES_COMMON_JSON_DEPTH_H_
#define SERVICES_COMMON_JSON_DEPTH_H_

#include "absl/strings/string_view.h"

namespace onegrid::common {

// Values within values of JSON that comes from outside: far more than any
// format here has, few enough for code that copies or writes them by recursion,
// as the JSON library does.
inline constexpr int kJsonDepthMax = 100;

// Whether brackets outside of strings nest deeper than `depth_max`; `text`
// need not be JSON. Thread-safe.
bool NestsDeeperThan(absl::string_view text, int depth_max);

// The most members that an object is to have which keeps their order: the JSON
// library looks through all of them for each.
inline constexpr int kOrderedMembersMax = 1000;

// Whether an object has more than `members_max` members; `text` need not be
// JSON. Thread-safe.
bool HasWiderObject(absl::string_view text, int members_max);

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_JSON_DEPTH_H_
