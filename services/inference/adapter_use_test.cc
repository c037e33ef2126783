// Tests of the counts of requests by adapter.
#include "services/inference/adapter_use.h"

#include <optional>

#include "gtest/gtest.h"

namespace onegrid::inference {
namespace {

TEST(AdapterUseTest, ARequestWaitsThenRunsThenIsGone) {
  AdapterUse use;
  std::optional<AdapterUse::Request> first;
  first.emplace(use, "a");
  AdapterUse::Request second(use, "a");
  EXPECT_EQ(use.counts().at("a").queued, 2);
  EXPECT_EQ(use.counts().at("a").running, 0);
  first->Started();
  first->Started();
  EXPECT_EQ(use.counts().at("a").queued, 1);
  EXPECT_EQ(use.counts().at("a").running, 1);
  first.reset();
  EXPECT_EQ(use.counts().at("a").queued, 1);
  EXPECT_EQ(use.counts().at("a").running, 0);
}

TEST(AdapterUseTest, NothingIsKeptOfRequestsThatEnded) {
  AdapterUse use;
  {
    AdapterUse::Request refused(use, "a");
  }
  EXPECT_TRUE(use.counts().empty());
}

TEST(AdapterUseTest, RequestsWithoutAdapterAreNotCounted) {
  AdapterUse use;
  AdapterUse::Request request(use, "");
  request.Started();
  EXPECT_TRUE(use.counts().empty());
}

}  // namespace
}  // namespace onegrid::inference
