// The version that servers and files name.
#ifndef SERVICES_COMMON_VERSION_H_
#define SERVICES_COMMON_VERSION_H_

namespace onegrid::common {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_VERSION_H_
