#include "services/common/stop_signal.h"

#include <gtest/gtest.h>

#include <ctime>
#include <thread>

#include "absl/time/clock.h"

namespace onegrid::common {
namespace {

// Once waited by polling without a pause.
TEST(StopSignalTest, WaitingWithoutAnEndSleeps) {
  clock_t used = 0;
  std::thread waiter([&used] {
    timespec before, after;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    EXPECT_TRUE(WaitForStop(absl::InfiniteDuration()));
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    used = (after.tv_sec - before.tv_sec) * 1'000'000 +
           (after.tv_nsec - before.tv_nsec) / 1000;
  });
  absl::SleepFor(absl::Milliseconds(200));
  RequestStop();
  waiter.join();
  EXPECT_LT(used, 50'000) << "microseconds of processor time in 200 ms";
}

}  // namespace
}  // namespace onegrid::common
