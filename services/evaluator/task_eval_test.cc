#include "services/evaluator/task_eval.h"

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/evaluator/fake_engine.h"

namespace onegrid::evaluator {
namespace {

std::vector<model::Example> FourExamples() {
  return {{"a:", " x", 1}, {"b:", " yy", 2}, {"c:", " x", 3}, {"d:", "z", 4}};
}

TEST(TaskEvalTest, CountsExactCompletionsAndPerplexity) {
  FakeEngine fake;
  fake.continuation = [](const std::string& prompt) -> std::string {
    if (prompt == "a:") return " x";   // right
    if (prompt == "b:") return " y";   // too short
    if (prompt == "c:") return " xx";  // too long
    return "z";                        // right
  };
  fake.logprob = -0.25f;
  EngineClient engine(fake.endpoint());
  const auto metrics = EvaluateTask(engine, FourExamples(), {});
  ASSERT_TRUE(metrics.ok()) << metrics.status();
  EXPECT_EQ(metrics->accuracy(), 50);
  EXPECT_EQ(metrics->examples(), 4);
  // Two, three, two and one tokens, and an end token each.
  EXPECT_EQ(metrics->completion_tokens(), 2 + 3 + 2 + 1 + 4);
  EXPECT_DOUBLE_EQ(metrics->perplexity(), std::exp(0.25));
}

TEST(TaskEvalTest, ACompletionThatDoesNotEndIsWrong) {
  FakeEngine fake;
  fake.continuation = [](const std::string&) { return " x"; };
  fake.finish_reason = v1::MAX_TOKENS;
  EngineClient engine(fake.endpoint());
  const auto metrics = EvaluateTask(engine, {{"a:", " x", 1}}, {});
  ASSERT_TRUE(metrics.ok()) << metrics.status();
  EXPECT_EQ(metrics->accuracy(), 0);
}

TEST(TaskEvalTest, WaitsOutAFullQueue) {
  FakeEngine fake;
  fake.queue_full = 5;
  EngineClient engine(fake.endpoint());
  const auto metrics = EvaluateTask(engine, FourExamples(), {2, {}});
  EXPECT_TRUE(metrics.ok()) << metrics.status();
}

TEST(TaskEvalTest, ReportsEachExampleAndStopsWhenToldTo) {
  FakeEngine fake;
  EngineClient engine(fake.endpoint());
  int64_t calls = 0;
  TaskOptions options;
  options.progress = [&calls](absl::string_view stage, int64_t done,
                              int64_t total, const v1::ModelMetrics* so_far) {
    EXPECT_EQ(stage, "evaluate");
    EXPECT_EQ(done, ++calls);
    EXPECT_EQ(total, 4);
    EXPECT_EQ(so_far->examples(), done);
    return done == 2 ? absl::AbortedError("stop") : absl::OkStatus();
  };
  options.in_flight = 1;
  EXPECT_EQ(EvaluateTask(engine, FourExamples(), options).status().code(),
            absl::StatusCode::kAborted);
  EXPECT_EQ(calls, 2);
}

TEST(TaskEvalTest, RefusesAnEmptySplitAndAShortAnswer) {
  FakeEngine fake;
  EngineClient engine(fake.endpoint());
  EXPECT_EQ(common::ErrorReason(EvaluateTask(engine, {}, {}).status()),
            "EMPTY_SPLIT");
  fake.short_scores = true;
  EXPECT_EQ(
      common::ErrorReason(EvaluateTask(engine, FourExamples(), {}).status()),
      "BAD_RESPONSE");
}

TEST(TaskEvalTest, SpeedsComeFromTheServersTimes) {
  FakeEngine fake;
  EngineClient engine(fake.endpoint());
  const auto speeds = MeasureSpeeds(engine, FourExamples(), {});
  ASSERT_TRUE(speeds.ok()) << speeds.status();
  EXPECT_DOUBLE_EQ(speeds->prefill_tokens_per_second, 512 / 2.0);
  EXPECT_DOUBLE_EQ(speeds->decode_tokens_per_second, 63);
}

TEST(EngineClientTest, AnUnreachableServerIsNamed) {
  EngineClient engine("127.0.0.1:1");
  const auto info = engine.Info(absl::Milliseconds(200));
  EXPECT_EQ(info.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(info.status().message(), "127.0.0.1:1"));
}

TEST(EngineClientTest, AnotherArtifactIsRefused) {
  FakeEngine fake;
  EngineClient engine(fake.endpoint());
  const auto info = engine.Info();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_TRUE(CheckArtifact(*info, "e", "aa").ok());
  EXPECT_TRUE(CheckArtifact(*info, "e", "").ok());
  EXPECT_EQ(common::ErrorReason(CheckArtifact(*info, "e", "bb")),
            "ARTIFACT_MISMATCH");
}

}  // namespace
}  // namespace onegrid::evaluator
