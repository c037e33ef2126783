#ifndef KERNELS_BASE_CHECK_H_
#define KERNELS_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

// Ends the process with the condition's text when a caller broke a stated
// precondition. Only for invariants between functions of this program: input
// from files, flags or the network gets an absl::Status instead.
#define KERNELS_CHECK(condition)                                            \
  do {                                                                      \
    if (!(condition)) {                                                     \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, \
                   #condition);                                             \
      std::abort();                                                         \
    }                                                                       \
  } while (false)

#endif  // KERNELS_BASE_CHECK_H_
