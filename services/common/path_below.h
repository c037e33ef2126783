// Paths that callers name and a server reads.
#ifndef SERVICES_COMMON_PATH_BELOW_H_
#define SERVICES_COMMON_PATH_BELOW_H_

#include <optional>
#include <string>

namespace onegrid::common {

// The full path of `path`, which may be absolute or start at `folder`, links
// followed. Null: it is not below `folder`, or that is not there. What is named
// need not be there. Between this call and the use of its answer links may
// change: `folder` is for those who may read all that its owner can link.
std::optional<std::string> PathBelow(const std::string& folder,
                                     const std::string& path);

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_PATH_BELOW_H_
