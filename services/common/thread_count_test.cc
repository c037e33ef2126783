#include "services/common/thread_count.h"

#include "gtest/gtest.h"

namespace onegrid::common {
namespace {

TEST(ThreadCountTest, FlagWins) {
  EXPECT_EQ(ChooseThreadCount(7).threads, 7);
  EXPECT_EQ(ChooseThreadCount(7).reason, "--threads");
  EXPECT_GE(ChooseThreadCount(0).threads, 1);
}

TEST(ThreadCountTest, QuotaIsRoundedUp) {
  EXPECT_EQ(CpusOfCpuMax("150000 100000"), 2);
  EXPECT_EQ(CpusOfCpuMax("50000 100000\n"), 1);
  EXPECT_EQ(CpusOfCpuMax("max 100000"), 0);
  EXPECT_EQ(CpusOfCpuMax("-1 100000"), 0);
  EXPECT_EQ(CpusOfCpuMax(""), 0);
  EXPECT_EQ(CpusOfCpuMax("1 0"), 0);
}

}  // namespace
}  // namespace onegrid::common
