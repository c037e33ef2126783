// How many threads a process should compute with.
#ifndef SERVICES_COMMON_THREAD_COUNT_H_
#define SERVICES_COMMON_THREAD_COUNT_H_

#include <string>

#include "absl/strings/string_view.h"

namespace onegrid::common {

// A number of threads, at least 1, and where it comes from.
struct ThreadCount {
  int threads = 1;
  // "--threads", "cgroup cpu.max" or "affinity".
  std::string reason;
};

// `flag` if positive, else the least of the CPUs this process may run on and
// its control group's CPU quota, rounded up.
ThreadCount ChooseThreadCount(int flag);

// CPUs that a cgroup v2 cpu.max line ("150000 100000", "max 100000") allows,
// rounded up; 0 when it sets no bound or is malformed.
int CpusOfCpuMax(absl::string_view line);

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_THREAD_COUNT_H_
