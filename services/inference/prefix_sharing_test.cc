// Goal: requests that begin with what others began with are answered as if they
// were alone, bit for bit, and say how much was kept.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/types/span.h"
#include "kernels/base/thread_pool.h"
#include "services/inference/engine.h"
#include "services/inference/gemma_weights.h"
#include "services/inference/generation_testing.h"
#include "services/inference/prefix_cache.h"
#include "services/inference/scheduler.h"
#include "services/inference/task.h"
#include "services/model/gguf_reader.h"

namespace onegrid::inference {
namespace {

class PrefixSharingTest
    : public testing::TestWithParam<std::tuple<TinyStructure, const char*>> {
 protected:
  PrefixSharingTest() : path_(TestModelPath()) {
    TinyModelOptions model;
    model.structure = std::get<0>(GetParam());
    EXPECT_TRUE(WriteTinyModel(path_, model).ok());
  }

  std::unique_ptr<ServedModel> Serve(int64_t prefix_bytes,
                                     const std::string& lookup = "auto",
                                     int max_step_tokens = 40) const {
    ServedModelOptions options;
    options.model_path = path_;
    options.threads = {2, "--threads"};
    options.kv_cache = std::get<1>(GetParam());
    options.max_step_tokens = max_step_tokens;
    options.prompt_lookup = lookup;
    options.prefix_cache_bytes = prefix_bytes;
    auto served = ServedModel::Load(options);
    EXPECT_TRUE(served.ok()) << served.status();
    return *std::move(served);
  }

  static Generated Generate(ServedModel& model,
                            const std::vector<int32_t>& prompt, int tokens) {
    v1::GenerateRequest request;
    request.mutable_token_ids()->mutable_ids()->Add(prompt.begin(),
                                                    prompt.end());
    request.mutable_stopping()->set_max_tokens(tokens);
    request.mutable_stopping()->set_ignore_eos(true);
    request.set_logprobs(true);
    const Generated result = inference::Generate(model.service(), request);
    EXPECT_TRUE(result.status.ok()) << result.status;
    return result;
  }

  static void ExpectSame(const Generated& a, const Generated& b) {
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.logprobs, b.logprobs);
  }

  const std::string path_;
};

// Letters that follow from the seed, after BOS.
std::vector<int32_t> Prompt(int length, uint32_t seed) {
  std::vector<int32_t> tokens = {kTinyBos};
  while (static_cast<int>(tokens.size()) < length) {
    seed = seed * 1664525 + 1013904223;
    tokens.push_back(kTinyLetterA + static_cast<int32_t>((seed >> 16) % 26));
  }
  return tokens;
}

std::vector<int32_t> Joined(std::vector<int32_t> a,
                            const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

constexpr int64_t kPlenty = int64_t{64} << 20;

TEST_P(PrefixSharingTest, TheSecondRequestRunsOnlyWhatIsNew) {
  const auto cold = Serve(0), warm = Serve(kPlenty);
  for (const int length : {63, 64, 65, 128, 150}) {
    const std::vector<int32_t> prompt = Prompt(length, 7);
    const Generated expected = Generate(*cold, prompt, 12);
    EXPECT_EQ(expected.started.cached_tokens(), 0);
    ExpectSame(Generate(*warm, prompt, 12), expected);
    const Generated again = Generate(*warm, prompt, 12);
    ExpectSame(again, expected);
    // What is in full pages of the first one, of which the last token said did
    // not run, but never the last token: its logits are wanted.
    EXPECT_EQ(again.started.cached_tokens(),
              std::min(length - 1, (length + 11) / 64 * 64))
        << length;
  }
  EXPECT_GT(warm->scheduler().load().prefix_tokens_restored, 0);
  EXPECT_EQ(cold->scheduler().load().prefix_tokens_restored, 0);
}

TEST_P(PrefixSharingTest, APageIsSharedAsFarAsItIsTheSame) {
  // Steps so short that a page is full before the window has passed it.
  const auto cold = Serve(0), warm = Serve(kPlenty, "auto", 8);
  // Within the first page, at the ends of pages, and behind some.
  for (const int common : {20, 63, 64, 71, 72, 100, 127, 160}) {
    const std::vector<int32_t> shared =
        Prompt(common, static_cast<uint32_t>(common));
    Generate(*warm, Joined(Joined(shared, {kTinyLetterA}), Prompt(70, 1)), 1);
    // The third one has a letter and BOS in common with the second.
    for (const int more : {0, 2}) {
      const std::vector<int32_t> prompt =
          Joined(Joined(shared, {kTinyLetterA + 1}),
                 Prompt(80, static_cast<uint32_t>(more)));
      const Generated found = Generate(*warm, prompt, 12);
      ExpectSame(found, Generate(*cold, prompt, 12));
      const int same = common + more;
      // Fewer tokens of a page are not worth a copy.
      EXPECT_EQ(found.started.cached_tokens(),
                same % 64 < PrefixCache::kLeastTail ? same / 64 * 64 : same);
    }
  }
}

TEST_P(PrefixSharingTest, AnswersAreKeptForTheNextTurn) {
  const auto cold = Serve(0), warm = Serve(kPlenty, "always");
  std::vector<int32_t> conversation = Prompt(40, 3);
  for (int turn = 0; turn < 3; ++turn) {
    const Generated answer = Generate(*warm, conversation, 40);
    ExpectSame(answer, Generate(*cold, conversation, 40));
    if (turn > 0) {
      EXPECT_GE(answer.started.cached_tokens(), 64);
    }
    conversation = Joined(Joined(conversation, answer.tokens), Prompt(9, turn));
  }
}

TEST_P(PrefixSharingTest, LittleRoomLosesSpeedOnly) {
  // Some pages of some layers of some sequences.
  const bool is_float = std::string(std::get<1>(GetParam())) == "f32";
  const auto cold = Serve(0), warm = Serve(is_float ? 1'200'000 : 300'000);
  const std::vector<int32_t> shared = Prompt(130, 1);
  int restored = 0;
  for (int round = 0; round < 24; ++round) {
    const auto seed = static_cast<uint32_t>(round % 5);
    const std::vector<int32_t> prompt =
        round % 3 == 2 ? Prompt(70 + 30 * (round % 4), seed + 50)
                       : Joined(shared, Prompt(5 + 20 * (round % 4), seed));
    const Generated found = Generate(*warm, prompt, 6);
    ExpectSame(found, Generate(*cold, prompt, 6));
    restored += found.started.cached_tokens();
  }
  EXPECT_GT(restored, 0);
}

TEST_P(PrefixSharingTest, RequestsAtTheSameTimeShare) {
  const auto cold = Serve(0), warm = Serve(kPlenty);
  const std::vector<int32_t> shared = Prompt(100, 5);
  std::vector<Generated> found(6);
  std::vector<std::thread> callers;
  for (size_t i = 0; i < found.size(); ++i) {
    callers.emplace_back([&, i] {
      found[i] = Generate(
          *warm, Joined(shared, Prompt(30, static_cast<uint32_t>(i % 3))), 10);
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (size_t i = 0; i < found.size(); ++i) {
    ExpectSame(
        found[i],
        Generate(*cold,
                 Joined(shared, Prompt(30, static_cast<uint32_t>(i % 3))), 10));
  }
}

// Takes one token, then guesses eight and ends at the next logits.
class GuessingTask : public Task {
 public:
  explicit GuessingTask(std::vector<int32_t> tokens)
      : tokens_(std::move(tokens)) {}

  absl::Span<const int32_t> tokens() const override { return tokens_; }
  int first_output() const override {
    return static_cast<int>(tokens_.size()) - 1;
  }
  int most_tokens() const override { return kTinyContext; }
  const TaskPlace& place() const override { return place_; }
  absl::Status Interrupted() const override { return absl::OkStatus(); }
  void OnStart(int restored) override { restored_ = restored; }
  std::vector<int32_t> Draft(int most) const override {
    return std::vector<int32_t>(static_cast<size_t>(most), kTinyLetterA);
  }
  void OnLogits(int, absl::Span<float>) override {
    if (taken_) ended_ = true;
    if (!taken_) tokens_.push_back(kTinyLetterA + 1);
    taken_ = true;
  }
  bool OnStepDone() override { return ended_; }
  void OnEnd(const absl::Status& status) override {
    EXPECT_TRUE(status.ok()) << status;
    end_.Notify();
  }

  // Tokens that were restored.
  int Wait() {
    end_.WaitForNotification();
    return restored_;
  }

 private:
  const TaskPlace place_;
  std::vector<int32_t> tokens_;
  int restored_ = -1;
  bool taken_ = false;
  bool ended_ = false;
  absl::Notification end_;
};

TEST_P(PrefixSharingTest, GuessesBehindTheEndAreNotKept) {
  kernels::ThreadPool pool(1);
  const auto file = model::GgufFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto weights = LoadGemmaWeights(**file, pool);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EngineOptions options;
  options.max_context = kTinyContext;
  options.max_rollback = 8;
  options.prefix_bytes = kPlenty;
  const auto engine = Engine::Create(*weights, options, pool);
  ASSERT_TRUE(engine.ok()) << engine.status();
  SchedulerOptions how;
  how.step.drafting = Drafting::kAlways;
  Scheduler scheduler(**engine, pool, how);
  // 60 tokens, one of its own and guesses beyond the first page.
  const std::vector<int32_t> prompt = Prompt(60, 1);
  const auto run = [&](std::vector<int32_t> tokens) {
    const auto task = std::make_shared<GuessingTask>(std::move(tokens));
    EXPECT_TRUE(scheduler.Submit(task).ok());
    return task->Wait();
  };
  EXPECT_EQ(run(prompt), 0);
  const std::vector<int32_t> answered = Joined(prompt, {kTinyLetterA + 1});
  EXPECT_EQ(run(Joined(answered, std::vector<int32_t>(9, kTinyLetterA))), 0);
  // That time they were said.
  EXPECT_EQ(run(Joined(answered, std::vector<int32_t>(9, kTinyLetterA))), 64);
}

INSTANTIATE_TEST_SUITE_P(
    Structures, PrefixSharingTest,
    testing::Combine(testing::Values(TinyStructure::kGemma3,
                                     TinyStructure::kGemma4Edge,
                                     TinyStructure::kGemma4Experts),
                     testing::Values("int8", "bf16", "f32")));

}  // namespace
}  // namespace onegrid::inference
