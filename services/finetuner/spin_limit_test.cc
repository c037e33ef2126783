#include "services/finetuner/spin_limit.h"

#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "gtest/gtest.h"

namespace onegrid::finetuner {
namespace {

constexpr char kChild[] = "--child";

std::string Setting(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "none" : value;
}

// Read when the program is loaded, as OpenMP does: a value that is set later
// is not seen.
const std::string* const spin_count_at_start =
    new std::string(Setting("GOMP_SPINCOUNT"));

// What a program that calls LimitSpinning first prints: the spin count that it
// was loaded with, its policy and its second argument. `settings` stands before
// it in a shell.
std::string RunChild(const std::string& settings) {
  char path[PATH_MAX] = {};
  if (readlink("/proc/self/exe", path, sizeof(path) - 1) < 0) return "no path";
  const std::string command = "env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT " +
                              settings + " '" + path + "' " + kChild + " 'a b'";
  FILE* const pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return "no pipe";
  char said[256] = {};
  const size_t size = fread(said, 1, sizeof(said) - 1, pipe);
  const int status = pclose(pipe);
  return status == 0 ? std::string(said, size) : "failed";
}

TEST(LimitSpinningTest, StartsAgainWithAShortSpin) {
  EXPECT_EQ(RunChild(""), "30000 none a b");
}

TEST(LimitSpinningTest, LeavesTheUsersSettings) {
  EXPECT_EQ(RunChild("GOMP_SPINCOUNT=7"), "7 none a b");
  EXPECT_EQ(RunChild("OMP_WAIT_POLICY=active"), "none active a b");
}

}  // namespace
}  // namespace onegrid::finetuner

int main(int argc, char** argv) {
  using onegrid::finetuner::kChild;
  using onegrid::finetuner::Setting;
  if (argc == 3 && std::strcmp(argv[1], kChild) == 0) {
    onegrid::finetuner::LimitSpinning(argv);
    std::printf("%s %s %s", onegrid::finetuner::spin_count_at_start->c_str(),
                Setting("OMP_WAIT_POLICY").c_str(), argv[2]);
    return 0;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
