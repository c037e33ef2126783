// Goal: requests whose memory was given to others, and ran again from their
// tokens, are answered as if they were alone, bit for bit.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/inference/generation_testing.h"

namespace onegrid::inference {
namespace {

constexpr int kSlots = 6;

std::vector<v1::GenerateRequest> Requests() {
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 10; ++i) {
    v1::GenerateRequest request;
    request.set_text(absl::StrCat("abcabcab", std::string(i, 'a' + i), "cab"));
    request.mutable_stopping()->set_max_tokens(120 + i);
    request.mutable_stopping()->set_ignore_eos(true);
    request.set_logprobs(true);
    request.set_priority(i % 2);
    if (i % 3 == 1) {
      request.mutable_sampling()->set_temperature(3);
      request.mutable_sampling()->set_top_k(5);
      request.mutable_sampling()->set_seed(i);
    }
    if (i % 3 == 2) {
      request.mutable_sampling()->set_repetition_penalty(1.1f);
    }
    requests.push_back(request);
  }
  return requests;
}

v1::ScoreTokensRequest ScoreRequest() {
  v1::ScoreTokensRequest request;
  for (int i = 0; i < 250; ++i) {
    request.add_token_ids(kTinyLetterA + i * 7 % 26);
  }
  request.set_first_scored(30);
  request.set_top_n(3);
  return request;
}

class PreemptionTest
    : public testing::TestWithParam<
          std::tuple<TinyStructure, const char*, const char*>> {
 protected:
  PreemptionTest() : path_(TestModelPath()) {
    TinyModelOptions model;
    model.structure = std::get<0>(GetParam());
    EXPECT_TRUE(WriteTinyModel(path_, model).ok());
  }

  std::unique_ptr<ServedModel> Serve(int64_t kv_budget, int slots,
                                     int64_t prefix_bytes) const {
    ServedModelOptions options;
    options.model_path = path_;
    options.threads = {2, "--threads"};
    options.kv_cache = std::get<1>(GetParam());
    options.prompt_lookup = std::get<2>(GetParam());
    options.max_sequences = slots;
    options.max_step_tokens = 40;
    options.prefix_cache_bytes = prefix_bytes;
    options.kv_budget_bytes = kv_budget;
    auto served = ServedModel::Load(options);
    EXPECT_TRUE(served.ok()) << served.status();
    return *std::move(served);
  }

  const std::string path_;
};

TEST_P(PreemptionTest, ChangesNothingButTheTime) {
  const auto alone = Serve(0, 1, 0);
  std::vector<Generated> expected;
  for (const v1::GenerateRequest& request : Requests()) {
    expected.push_back(Generate(alone->service(), request));
  }
  auto expected_scores = alone->service().ScoreTokens(ScoreRequest(), {});
  ASSERT_TRUE(expected_scores.ok()) << expected_scores.status();
  expected_scores->clear_compute_time();
  const int64_t budget = alone->service().info().kv_bytes() * kSlots * 2 / 3;
  for (const int64_t prefix_bytes : {int64_t{0}, budget}) {
    const auto served = Serve(budget, kSlots, prefix_bytes);
    EXPECT_EQ(served->service().info().kv_bytes(), budget);
    const std::vector<v1::GenerateRequest> requests = Requests();
    const auto wait_for = [&](int queued) {
      while (served->service().GetLoad().queued() < queued) {
        absl::SleepFor(absl::Milliseconds(1));
      }
    };
    // The first one holds the scheduler up until those of its priority wait,
    // and after some steps until the others do.
    absl::Notification asked, low, high;
    std::atomic<int> questions = 0;
    CallContext first;
    first.cancelled = [&] {
      const int question = questions++;
      if (question == 0) {
        asked.Notify();
        low.WaitForNotification();
      }
      if (question == 60) high.WaitForNotification();
      return false;
    };
    std::vector<Generated> found(requests.size());
    absl::StatusOr<v1::ScoreTokensResponse> scores;
    std::vector<std::thread> callers;
    const auto call = [&](size_t i) {
      callers.emplace_back([&, i] {
        found[i] = Generate(served->service(), requests[i],
                            i == 0 ? first : CallContext{});
      });
    };
    call(0);
    asked.WaitForNotification();
    callers.emplace_back(
        [&] { scores = served->service().ScoreTokens(ScoreRequest(), {}); });
    for (size_t i = 2; i < requests.size(); i += 2) call(i);
    wait_for(static_cast<int>(callers.size()));
    low.Notify();
    while (questions <= 60) absl::SleepFor(absl::Milliseconds(1));
    const int waiting = served->service().GetLoad().queued();
    for (size_t i = 1; i < requests.size(); i += 2) call(i);
    wait_for(waiting + static_cast<int>(requests.size()) / 2);
    high.Notify();
    for (std::thread& caller : callers) caller.join();

    int preemptions = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(found[i].tokens, expected[i].tokens) << i;
      EXPECT_EQ(found[i].logprobs, expected[i].logprobs) << i;
      preemptions += found[i].finished.preemptions();
    }
    EXPECT_GT(preemptions, 0);
    ASSERT_TRUE(scores.ok()) << scores.status();
    scores->clear_compute_time();
    EXPECT_EQ(scores->SerializeAsString(),
              expected_scores->SerializeAsString());

    const v1::Load load = served->service().GetLoad();
    EXPECT_EQ(load.running(), 0);
    EXPECT_EQ(load.queued(), 0);
    EXPECT_EQ(load.kv_bytes(), load.prefix_cache_bytes());
    EXPECT_EQ(load.kv_bytes_limit(), budget);
    EXPECT_GE(load.preemptions(), preemptions);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Structures, PreemptionTest,
    testing::Combine(testing::Values(TinyStructure::kGemma3,
                                     TinyStructure::kGemma4Edge,
                                     TinyStructure::kGemma4Experts),
                     testing::Values("int8", "bf16", "f32"),
                     testing::Values("off", "always")));

}  // namespace
}  // namespace onegrid::inference
