#include "services/gateway/gateway_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "proto/onegrid/v1/generation.pb.h"

namespace onegrid::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(GatewayMetricsTest, BucketsAreCumulative) {
  GatewayMetrics metrics("m");
  metrics.FirstToken(absl::Milliseconds(1));
  metrics.FirstToken(absl::Milliseconds(2));
  metrics.FirstToken(absl::Hours(1));
  const std::string text = metrics.Text(nullptr);
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
  EXPECT_THAT(
      metrics.Text(nullptr),
      HasSubstr("onegrid_gateway_requests_in_progress{model_name=\"m\"} 2\n"));
  metrics.GenerationEnded(true, absl::Seconds(1), {5, 2, 7});
  metrics.GenerationEnded(false, absl::Seconds(1), {1, 1, 2});
  const std::string text = metrics.Text(nullptr);
  EXPECT_THAT(
      text,
      HasSubstr("onegrid_gateway_requests_in_progress{model_name=\"m\"} 0\n"));
  EXPECT_THAT(text,
              HasSubstr("onegrid_prompt_tokens_total{model_name=\"m\"} 6\n"));
  EXPECT_THAT(
      text, HasSubstr("onegrid_generation_tokens_total{model_name=\"m\"} 9\n"));
  EXPECT_THAT(
      text,
      HasSubstr("onegrid_prompt_tokens_cached_total{model_name=\"m\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("_latency_seconds_count{model_name=\"m\"} 1\n"));
}

TEST(GatewayMetricsTest, FinishedAnswersCountTheirTimesAndTokens) {
  GatewayMetrics metrics("m");
  v1::Finished finished;
  finished.set_reason(v1::MAX_TOKENS);
  finished.set_prompt_tokens(20);
  finished.set_completion_tokens(21);
  finished.mutable_queue_time()->set_seconds(2);
  finished.mutable_prefill_time()->set_nanos(250'000'000);
  finished.mutable_decode_time()->set_nanos(500'000'000);
  metrics.Finished(finished);
  finished.set_reason(v1::STOP_STRING);
  metrics.Finished(finished);
  const std::string text = metrics.Text(nullptr);
  for (const char* line : {
           "onegrid_request_success_total{model_name=\"m\","
           "finished_reason=\"length\"} 1\n",
           "finished_reason=\"stop\"} 1\n",
           "onegrid_request_queue_time_seconds_sum{model_name=\"m\"} 4\n",
           "onegrid_request_prefill_time_seconds_sum{model_name=\"m\"} 0.5\n",
           "onegrid_request_decode_time_seconds_sum{model_name=\"m\"} 1\n",
           "onegrid_request_inference_time_seconds_sum{model_name=\"m\"} 1.5\n",
           "request_prompt_tokens_bucket{model_name=\"m\",le=\"10\"} 0\n",
           "request_prompt_tokens_bucket{model_name=\"m\",le=\"20\"} 2\n",
           "request_generation_tokens_bucket{model_name=\"m\",le=\"20\"} 0\n",
           "request_generation_tokens_bucket{model_name=\"m\",le=\"50\"} 2\n",
           "request_generation_tokens_bucket{model_name=\"m\",le=\"100000\"} "
           "2\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(GatewayMetricsTest, GapsBetweenTokensAreCounted) {
  GatewayMetrics metrics("m");
  metrics.NextTokens(absl::Milliseconds(20));
  metrics.NextTokens(absl::Milliseconds(30));
  const std::string text = metrics.Text(nullptr);
  const std::string name =
      "onegrid_inter_token_latency_seconds_bucket{model_name=\"m\",le=\"";
  EXPECT_THAT(text, HasSubstr(name + "0.01\"} 0\n"));
  EXPECT_THAT(text, HasSubstr(name + "0.025\"} 1\n"));
  EXPECT_THAT(text, HasSubstr(name + "80\"} 2\n"));
}

TEST(GatewayMetricsTest, TheLoadIsThatOfTheBackend) {
  v1::Load load;
  load.set_running(2);
  load.set_queued(5);
  load.set_kv_bytes(750);
  load.set_prefix_cache_bytes(250);
  load.set_idle_prefix_cache_bytes(100);
  load.set_kv_bytes_limit(1000);
  load.set_preemptions(3);
  load.set_prefix_tokens_asked(70);
  load.set_prefix_tokens_restored(40);
  load.set_guesses_tried(9);
  load.set_guesses_accepted(6);
  const std::string text = GatewayMetrics("m").Text(&load);
  for (const char* value : {
           "backend_up{model_name=\"m\"} 1",
           "num_requests_running{model_name=\"m\"} 2",
           "num_requests_waiting{model_name=\"m\"} 5",
           "kv_cache_usage_perc{model_name=\"m\"} 0.65",
           "prefix_cache_usage_perc{model_name=\"m\"} 0.25",
           "num_preemptions_total{model_name=\"m\"} 3",
           "prefix_cache_queries_total{model_name=\"m\"} 70",
           "prefix_cache_hits_total{model_name=\"m\"} 40",
           "spec_decode_num_draft_tokens_total{model_name=\"m\"} 9",
           "spec_decode_num_accepted_tokens_total{model_name=\"m\"} 6",
       }) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("\nonegrid_", value, "\n")));
  }
}

TEST(GatewayMetricsTest, NothingIsSaidOfABackendThatDoesNotAnswer) {
  const std::string text = GatewayMetrics("m").Text(nullptr);
  EXPECT_THAT(text, HasSubstr("\nonegrid_backend_up{model_name=\"m\"} 0\n"));
  for (const char* name : {"num_requests", "kv_cache", "prefix_cache",
                           "preemptions", "spec_decode"}) {
    EXPECT_THAT(text, Not(HasSubstr(name)));
  }
}

// Names and labels of vLLM's metric, which routers by adapter read.
TEST(GatewayMetricsTest, AdaptersThatRunAndWaitAreNamed) {
  v1::Load load;
  load.set_max_adapters(4);
  EXPECT_THAT(GatewayMetrics("m").Text(&load),
              HasSubstr("\nonegrid_lora_requests_info{max_lora=\"4\","
                        "running_lora_adapters=\"\","
                        "waiting_lora_adapters=\"\"} "));
  (*load.mutable_adapter_running())["b"] = 1;
  (*load.mutable_adapter_running())["a/x"] = 2;
  (*load.mutable_adapter_queued())["c"] = 3;
  EXPECT_THAT(GatewayMetrics("m").Text(&load),
              HasSubstr("running_lora_adapters=\"a/x,b\","
                        "waiting_lora_adapters=\"c\"} "));
}

TEST(GatewayMetricsTest, NoUseIsShownWhereThereIsNoLimit) {
  v1::Load load;
  load.set_kv_bytes(1);
  EXPECT_THAT(GatewayMetrics("m").Text(&load),
              HasSubstr("kv_cache_usage_perc{model_name=\"m\"} 0\n"));
}

TEST(GatewayMetricsTest, NamesInLabelsAreEscaped) {
  GatewayMetrics metrics("a\"b\\c\n");
  metrics.Answered("/health", 200);
  metrics.Answered("/health", 200);
  EXPECT_THAT(metrics.Text(nullptr),
              HasSubstr(R"({model_name="a\"b\\c\n"} 0)"));
  EXPECT_THAT(
      metrics.Text(nullptr),
      HasSubstr(
          "onegrid_http_requests_total{endpoint=\"/health\",code=\"200\"} 2"));
}

}  // namespace
}  // namespace onegrid::gateway
