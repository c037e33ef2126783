#include "services/common/thread_count.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace onegrid::common {
namespace {

std::string FirstLine(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

int AffinityCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    return std::max(1, CPU_COUNT(&set));
  }
  return std::max(1u, std::thread::hardware_concurrency());
}

// Quota of this process's own group and of the root of its namespace.
int CgroupCpus() {
  int cpus = 0;
  std::vector<std::string> lines = {FirstLine("/sys/fs/cgroup/cpu.max")};
  std::string own = FirstLine("/proc/self/cgroup");
  absl::string_view path = own;
  if (absl::ConsumePrefix(&path, "0::") && path != "/") {
    lines.push_back(
        FirstLine(absl::StrCat("/sys/fs/cgroup", path, "/cpu.max")));
  }
  lines.push_back(
      absl::StrCat(FirstLine("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), " ",
                   FirstLine("/sys/fs/cgroup/cpu/cpu.cfs_period_us")));
  for (const std::string& line : lines) {
    const int bound = CpusOfCpuMax(line);
    if (bound > 0) cpus = cpus == 0 ? bound : std::min(cpus, bound);
  }
  return cpus;
}

}  // namespace

int CpusOfCpuMax(absl::string_view line) {
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::StripAsciiWhitespace(line), ' ', absl::SkipEmpty());
  int64_t quota = 0;
  int64_t period = 0;
  if (fields.size() != 2 || !absl::SimpleAtoi(fields[0], &quota) ||
      !absl::SimpleAtoi(fields[1], &period) || quota <= 0 || period <= 0) {
    return 0;
  }
  return static_cast<int>(
      std::min<int64_t>((quota + period - 1) / period, 4096));
}

ThreadCount ChooseThreadCount(int flag) {
  if (flag > 0) return {flag, "--threads"};
  const int affinity = AffinityCpus();
  const int cgroup = CgroupCpus();
  if (cgroup > 0 && cgroup < affinity) return {cgroup, "cgroup cpu.max"};
  return {affinity, "affinity"};
}

}  // namespace onegrid::common
