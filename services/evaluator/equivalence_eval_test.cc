#include "services/evaluator/equivalence_eval.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/evaluator/fake_engine.h"
#include "services/model/safetensors.h"

namespace onegrid::evaluator {
namespace {

template <typename T>
std::vector<uint8_t> BytesOf(const std::vector<T>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// Candidate i has this log-probability in every row; together about 0.999.
float LogProb(int i) {
  return i == 0 ? std::log(0.5f) : std::log(0.499f / (kProbeTop - 1));
}

// Two sequences of three and two tokens: three scored positions.
struct ProbeParts {
  std::string format = "onegrid.probe.v1";
  std::vector<int32_t> tokens = {2, 10, 11, 2, 12};
  std::vector<int32_t> starts = {0, 3, 5};
  int64_t rows = 3;
};

std::string WriteProbe(const ProbeParts& parts) {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  for (int64_t row = 0; row < parts.rows; ++row) {
    for (int i = 0; i < kProbeTop; ++i) {
      ids.push_back(100 + i);
      logprobs.push_back(LogProb(i));
    }
  }
  model::SafetensorsWriter writer;
  writer.SetMetadata("format", parts.format);
  const auto size = [](const std::vector<int32_t>& values) {
    return static_cast<int64_t>(values.size());
  };
  EXPECT_TRUE(
      writer
          .Add("token_ids", "I32", {size(parts.tokens)}, BytesOf(parts.tokens))
          .ok());
  EXPECT_TRUE(writer
                  .Add("sequence_starts", "I32", {size(parts.starts)},
                       BytesOf(parts.starts))
                  .ok());
  EXPECT_TRUE(
      writer.Add("top_ids", "I32", {parts.rows, kProbeTop}, BytesOf(ids)).ok());
  EXPECT_TRUE(writer
                  .Add("top_logprobs", "F32", {parts.rows, kProbeTop},
                       BytesOf(logprobs))
                  .ok());
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string path =
      absl::StrCat(testing::TempDir(), "/", test->name(), ".safetensors");
  EXPECT_TRUE(writer.WriteTo(path).ok());
  return path;
}

TEST(KlWithRestTest, MatchesTheFormula) {
  const std::vector<float> p = {std::log(0.5f), std::log(0.25f)};
  const std::vector<float> q = {std::log(0.4f), std::log(0.4f)};
  EXPECT_NEAR(KlWithRest(p, p), 0, 1e-9);
  EXPECT_NEAR(KlWithRest(p, q),
              0.5 * std::log(0.5 / 0.4) + 0.25 * std::log(0.25 / 0.4) +
                  0.25 * std::log(0.25 / 0.2),
              1e-6);
}

TEST(KlWithRestTest, AFullSumLeavesNoInfinity) {
  const std::vector<float> p = {0.f, -std::numeric_limits<float>::infinity()};
  EXPECT_NEAR(KlWithRest(p, p), 0, 1e-9);
  EXPECT_TRUE(std::isfinite(KlWithRest({-1e-8f}, {-20.f})));
}

TEST(CompareLogitsTest, TheSameLogitsAgree) {
  FakeEngine fake;
  fake.candidate_logprob = LogProb;
  fake.argmax = 100;
  EngineClient engine(fake.endpoint());
  const auto probe = ProbeFile::Open(WriteProbe({}));
  ASSERT_TRUE(probe.ok()) << probe.status();
  int64_t last = 0;
  const auto agreement =
      CompareLogits(engine, **probe, "float",
                    [&last](absl::string_view, int64_t done, int64_t total,
                            const v1::ModelMetrics*) {
                      EXPECT_EQ(total, 3);
                      last = done;
                      return absl::OkStatus();
                    });
  ASSERT_TRUE(agreement.ok()) << agreement.status();
  EXPECT_EQ(last, 3);
  EXPECT_NEAR(agreement->mean_kl(), 0, 1e-9);
  EXPECT_EQ(agreement->top1_agreement(), 1);
  EXPECT_NE(agreement->engine().find("fake"), std::string::npos);
}

TEST(CompareLogitsTest, OtherLogitsShow) {
  FakeEngine fake;
  fake.candidate_logprob = [](int i) { return LogProb(i) - 0.125f; };
  fake.argmax = 101;
  EngineClient engine(fake.endpoint());
  const auto probe = ProbeFile::Open(WriteProbe({}));
  ASSERT_TRUE(probe.ok()) << probe.status();
  const auto agreement = CompareLogits(engine, **probe, "float", {});
  ASSERT_TRUE(agreement.ok()) << agreement.status();
  const double q_rest = 1 - 0.999 * std::exp(-0.125);
  EXPECT_NEAR(agreement->mean_kl(),
              0.999 * 0.125 + 0.001 * std::log(0.001 / q_rest), 1e-4);
  EXPECT_EQ(agreement->top1_agreement(), 0);
}

TEST(ProbeFileTest, RefusesWhatDoesNotFit) {
  const ProbeParts bad[] = {
      {"onegrid.probe.v9", {2, 10, 11, 2, 12}, {0, 3, 5}, 3},
      {"onegrid.probe.v1", {2, 10, 11, 2, 12}, {0, 3}, 3},
      {"onegrid.probe.v1", {2, 10, 11, 2, 12}, {0, 4, 5}, 3},
      {"onegrid.probe.v1", {2, 10, 11, 2, 12}, {0, 5, 3, 5}, 3},
      {"onegrid.probe.v1", {2, 10, 11, 2, 12}, {1, 3, 5}, 3},
      {"onegrid.probe.v1", {2, 10, 11, 2, 12}, {5}, 3},
      {"onegrid.probe.v1", {2, 10, 11, 2, 12}, {0, 3, 5}, 2},
      {"onegrid.probe.v1", {2, 10, 11, 2, 12}, {0, 3, 5}, 4},
  };
  for (const ProbeParts& parts : bad) {
    EXPECT_EQ(common::ErrorReason(ProbeFile::Open(WriteProbe(parts)).status()),
              "CORRUPT_FILE");
  }
}

TEST(JudgeTest, EveryBoundCounts) {
  v1::EquivalenceReport good;
  good.mutable_float_engine()->set_mean_kl(1e-6);
  good.mutable_float_engine()->set_top1_agreement(1);
  good.mutable_served_engine()->set_mean_kl(2e-3);
  good.mutable_served_engine()->set_top1_agreement(0.97);
  const AgreementBounds bounds = {1e-4, 0.995, 5e-3, 0.96, 1e-5};
  EXPECT_EQ(Judge(good, bounds), v1::EquivalenceReport::PASSED);
  good.mutable_served_arithmetic()->set_mean_kl(1e-8);
  EXPECT_EQ(Judge(good, bounds), v1::EquivalenceReport::PASSED);
  const auto judge_with = [&](auto change) {
    v1::EquivalenceReport report = good;
    change(report);
    return Judge(report, bounds);
  };
  constexpr auto kFailed = v1::EquivalenceReport::FAILED_EQUIVALENCE;
  EXPECT_EQ(
      judge_with([](auto& r) { r.mutable_float_engine()->set_mean_kl(2e-4); }),
      kFailed);
  EXPECT_EQ(judge_with([](auto& r) {
              r.mutable_float_engine()->set_top1_agreement(0.9);
            }),
            kFailed);
  EXPECT_EQ(judge_with([](auto& r) {
              r.mutable_served_engine()->set_mean_kl(std::nan(""));
            }),
            kFailed);
  EXPECT_EQ(judge_with([](auto& r) {
              r.mutable_served_engine()->set_top1_agreement(0.95);
            }),
            kFailed);
  EXPECT_EQ(judge_with([](auto& r) {
              r.mutable_served_arithmetic()->set_mean_kl(2e-5);
            }),
            kFailed);
}

}  // namespace
}  // namespace onegrid::evaluator
