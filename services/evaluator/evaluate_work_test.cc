#include "services/evaluator/evaluate_work.h"

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/evaluator/fake_engine.h"
#include "services/evaluator/probe_file.h"
#include "services/model/safetensors.h"

namespace onegrid::evaluator {
namespace {

// A context whose blobs are local files, named by their paths.
class FakeContext : public common::WorkContext {
 public:
  FakeContext() {
    work.set_kind(v1::EVALUATE);
    work.mutable_evaluate()->set_artifact_sha256("aa");
  }

  const v1::WorkItem& item() const override { return work; }
  absl::StatusOr<std::string> Fetch(const v1::ArtifactRef& ref) override {
    return ref.sha256();
  }
  absl::StatusOr<v1::ArtifactRef> Publish(const std::string&,
                                          const std::string&,
                                          const std::string&) override {
    return absl::UnimplementedError("evaluations publish nothing");
  }
  void ReportProgress(const v1::Progress& progress) override {
    stages[progress.stage()] = progress;
  }
  absl::Status CommitCheckpoint(const v1::Checkpoint&) override {
    return absl::UnimplementedError("evaluations have no checkpoints");
  }
  bool cancelled() const override { return stop; }
  const std::string& scratch_dir() const override { return scratch_; }

  v1::EvaluateWork& evaluate() { return *work.mutable_evaluate(); }

  v1::WorkItem work;
  bool stop = false;
  std::map<std::string, v1::Progress> stages;

 private:
  std::string scratch_;
};

std::string TestFile(const std::string& name) {
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  return absl::StrCat(testing::TempDir(), "/", test->name(), ".", name);
}

void SetTask(const FakeEngine& fake, FakeContext& context) {
  const std::string split = TestFile("split.jsonl");
  ASSERT_TRUE(
      common::WriteFileAtomic(split,
                              "{\"prompt\": \"a:\", \"completion\": \" x\"}\n"
                              "{\"prompt\": \"b:\", \"completion\": \" y\"}\n")
          .ok());
  context.evaluate().mutable_evaluation()->set_kind(v1::TASK);
  context.evaluate().mutable_split()->set_sha256(split);
  context.evaluate().set_served_endpoint(fake.endpoint());
}

TEST(EvaluateWorkTest, ATaskHasMetricsSpeedsAndTheEngine) {
  FakeEngine fake;
  fake.continuation = [](const std::string& prompt) {
    return prompt == "a:" ? " x" : "";
  };
  FakeContext context;
  SetTask(fake, context);
  const auto result = HandleWork(context, 8);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->evaluate().metrics().accuracy(), 50);
  EXPECT_GT(result->evaluate().prefill_tokens_per_second(), 0);
  EXPECT_GT(result->evaluate().decode_tokens_per_second(), 0);
  EXPECT_NE(result->evaluate().engine().find("fake"), std::string::npos);
  EXPECT_EQ(context.stages["evaluate"].step(), 2);
  EXPECT_EQ(context.stages["evaluate"].metrics().at("accuracy"), 50);
}

TEST(EvaluateWorkTest, MaxExamplesTakesTheStartOfTheSplit) {
  FakeEngine fake;
  fake.continuation = [](const std::string&) { return " x"; };
  FakeContext context;
  SetTask(fake, context);
  context.evaluate().mutable_evaluation()->set_max_examples(1);
  const auto result = HandleWork(context, 8);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->evaluate().metrics().examples(), 1);
  EXPECT_EQ(result->evaluate().metrics().accuracy(), 100);
}

TEST(EvaluateWorkTest, RefusesAServerOfAnotherArtifact) {
  FakeEngine fake;
  fake.artifact_sha256 = "bb";
  FakeContext context;
  SetTask(fake, context);
  EXPECT_EQ(common::ErrorReason(HandleWork(context, 8).status()),
            "ARTIFACT_MISMATCH");
}

TEST(EvaluateWorkTest, NamesTheBadLineOfASplit) {
  FakeEngine fake;
  FakeContext context;
  SetTask(fake, context);
  ASSERT_TRUE(
      common::WriteFileAtomic(context.evaluate().split().sha256(),
                              "{\"prompt\": \"a\", \"completion\": \"b\"}\n"
                              "{\"prompt\": \"a\"}\n")
          .ok());
  const auto result = HandleWork(context, 8);
  EXPECT_EQ(common::ErrorMetadata(result.status())["line"], "2");
}

TEST(EvaluateWorkTest, StopsWhenCancelled) {
  FakeEngine fake;
  FakeContext context;
  SetTask(fake, context);
  context.stop = true;
  EXPECT_EQ(common::ErrorReason(HandleWork(context, 8).status()), "CANCELLED");
}

// One sequence of two tokens, every candidate equally likely.
std::string WriteProbe(float logprob) {
  const std::vector<int32_t> tokens = {2, 10};
  const std::vector<int32_t> starts = {0, 2};
  const std::vector<int32_t> ids(kProbeTop, 7);
  const std::vector<float> logprobs(kProbeTop, logprob);
  const auto bytes = [](const auto& values) {
    const auto* begin = reinterpret_cast<const uint8_t*>(values.data());
    return std::vector<uint8_t>(begin, begin + values.size() * 4);
  };
  model::SafetensorsWriter writer;
  writer.SetMetadata("format", "onegrid.probe.v1");
  EXPECT_TRUE(writer.Add("token_ids", "I32", {2}, bytes(tokens)).ok());
  EXPECT_TRUE(writer.Add("sequence_starts", "I32", {2}, bytes(starts)).ok());
  EXPECT_TRUE(writer.Add("top_ids", "I32", {1, kProbeTop}, bytes(ids)).ok());
  EXPECT_TRUE(
      writer.Add("top_logprobs", "F32", {1, kProbeTop}, bytes(logprobs)).ok());
  const std::string path = TestFile("probe.safetensors");
  EXPECT_TRUE(writer.WriteTo(path).ok());
  return path;
}

TEST(EvaluateWorkTest, EquivalenceFillsInLevelTwoAndJudges) {
  constexpr float kLogProb = -7.f;  // 1,024 of these are 0.93
  FakeEngine in_float;
  FakeEngine served;
  in_float.argmax = served.argmax = 7;
  in_float.candidate_logprob = [](int) { return kLogProb; };
  served.candidate_logprob = [](int) { return kLogProb - 0.01f; };
  FakeContext context;
  v1::EvaluateWork& work = context.evaluate();
  work.mutable_evaluation()->set_kind(v1::EQUIVALENCE);
  work.mutable_probe_logits()->set_sha256(WriteProbe(kLogProb));
  work.set_float_endpoint(in_float.endpoint());
  work.set_served_endpoint(served.endpoint());
  work.mutable_level1()->set_tensors(60);
  work.set_kl_float(1e-4);
  work.set_top1_float(0.995);
  work.set_kl_served(0.005);
  work.set_top1_served(0.96);
  auto result = HandleWork(context, 8);
  ASSERT_TRUE(result.ok()) << result.status();
  const v1::EquivalenceReport& report = result->evaluate().equivalence();
  EXPECT_EQ(report.tensors(), 60);
  EXPECT_EQ(report.probe_tokens(), 1);
  EXPECT_NEAR(report.float_engine().mean_kl(), 0, 1e-9);
  EXPECT_GT(report.served_engine().mean_kl(), 1e-4);
  EXPECT_FALSE(report.has_served_arithmetic());
  EXPECT_EQ(report.verdict(), v1::EquivalenceReport::PASSED);

  // The engine is not the one whose arithmetic the trainer has.
  *work.mutable_served_probe_logits() = work.probe_logits();
  work.set_kl_served_arithmetic(1e-5);
  result = HandleWork(context, 8);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->evaluate().equivalence().served_arithmetic().mean_kl(),
            result->evaluate().equivalence().served_engine().mean_kl());
  EXPECT_EQ(result->evaluate().equivalence().verdict(),
            v1::EquivalenceReport::FAILED_EQUIVALENCE);
  work.clear_served_probe_logits();

  work.set_kl_served(1e-5);
  result = HandleWork(context, 8);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->evaluate().equivalence().verdict(),
            v1::EquivalenceReport::FAILED_EQUIVALENCE);
}

}  // namespace
}  // namespace onegrid::evaluator
