#include "services/gateway/gateway_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace onegrid::gateway {
namespace {

using ::testing::HasSubstr;

TEST(GatewayMetricsTest, BucketsAreCumulative) {
  GatewayMetrics metrics("m");
  metrics.FirstToken(absl::Milliseconds(1));
  metrics.FirstToken(absl::Milliseconds(2));
  metrics.FirstToken(absl::Hours(1));
  const std::string text = metrics.Text();
  const std::string name =
      "onegrid_time_to_first_token_seconds_bucket{model_name=\"m\",le=\"";
  EXPECT_THAT(text, HasSubstr(name + "0.001\"} 1\n"));
  EXPECT_THAT(text, HasSubstr(name + "0.005\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(name + "2560\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(name + "+Inf\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("_first_token_seconds_sum{model_name=\"m\"} "
                              "3600.003\n"));
  EXPECT_THAT(text, HasSubstr("_first_token_seconds_count{model_name=\"m\"} "
                              "3\n"));
}

TEST(GatewayMetricsTest, FailedRequestsCountTheirTokensButNoLatency) {
  GatewayMetrics metrics("m");
  metrics.GenerationBegan();
  metrics.GenerationBegan();
  EXPECT_THAT(metrics.Text(),
              HasSubstr("onegrid_num_requests_running{model_name=\"m\"} 2\n"));
  metrics.GenerationEnded(true, absl::Seconds(1), {5, 2, 7});
  metrics.GenerationEnded(false, absl::Seconds(1), {1, 1, 2});
  const std::string text = metrics.Text();
  EXPECT_THAT(text,
              HasSubstr("onegrid_num_requests_running{model_name=\"m\"} 0\n"));
  EXPECT_THAT(text,
              HasSubstr("onegrid_prompt_tokens_total{model_name=\"m\"} 6\n"));
  EXPECT_THAT(
      text, HasSubstr("onegrid_generation_tokens_total{model_name=\"m\"} 9\n"));
  EXPECT_THAT(
      text,
      HasSubstr("onegrid_prefix_cache_queries_total{model_name=\"m\"} 6\n"));
  EXPECT_THAT(
      text, HasSubstr("onegrid_prefix_cache_hits_total{model_name=\"m\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("_latency_seconds_count{model_name=\"m\"} 1\n"));
}

TEST(GatewayMetricsTest, NamesInLabelsAreEscaped) {
  GatewayMetrics metrics("a\"b\\c\n");
  metrics.Answered("/health", 200);
  metrics.Answered("/health", 200);
  EXPECT_THAT(metrics.Text(), HasSubstr(R"({model_name="a\"b\\c\n"} 0)"));
  EXPECT_THAT(
      metrics.Text(),
      HasSubstr(
          "onegrid_http_requests_total{endpoint=\"/health\",code=\"200\"} 2"));
}

}  // namespace
}  // namespace onegrid::gateway
