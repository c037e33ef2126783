// Goal: what callers of the service rely on, on a tiny random model.
#include "services/inference/generation_service.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/inference/served_model.h"
#include "services/inference/tiny_adapter.h"
#include "services/inference/tiny_model.h"

namespace onegrid::inference {
namespace {

using ::testing::HasSubstr;

struct Generated {
  absl::Status status;
  std::string text;
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  v1::Finished finished;
  bool started = false;
  std::string adapter_sha256;
  int cached = 0;
};

v1::GenerateRequest Request(const std::string& text, int max_tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

Generated Generate(GenerationService& service,
                   const v1::GenerateRequest& request,
                   const CallContext& context = {}) {
  Generated result;
  result.status = service.Generate(
      request, context, [&](const v1::GenerateResponse& response) {
        if (response.has_started()) {
          EXPECT_FALSE(result.started);
          result.started = true;
          result.adapter_sha256 = response.started().adapter_sha256();
          result.cached = response.started().cached_tokens();
        } else if (response.has_delta()) {
          const v1::Delta& delta = response.delta();
          result.text += delta.text();
          result.tokens.insert(result.tokens.end(), delta.token_ids().begin(),
                               delta.token_ids().end());
          result.logprobs.insert(result.logprobs.end(),
                                 delta.logprobs().begin(),
                                 delta.logprobs().end());
        } else {
          result.finished = response.finished();
        }
        return true;
      });
  return result;
}

class GenerationServiceTest : public testing::Test {
 protected:
  void Start(int max_sequences = 4, int max_queue = 8,
             const std::string& prompt_lookup = "auto",
             const std::string& precision = "int8",
             const TinyModelOptions& model = {}) {
    // One file per test: tests of a suite may run in several processes.
    const std::string path = absl::StrCat(
        testing::TempDir(), "/",
        absl::StrReplaceAll(
            testing::UnitTest::GetInstance()->current_test_info()->name(),
            {{"/", "_"}}),
        ".gguf");
    ASSERT_TRUE(WriteTinyModel(path, model).ok());
    ServedModelOptions options;
    options.model_path = path;
    options.threads = {2, "--threads"};
    options.max_sequences = max_sequences;
    options.max_queue = max_queue;
    options.prompt_lookup = prompt_lookup;
    options.activations = precision;
    options.kv_cache = precision;
    options.max_step_tokens = 32;
    options.adapter_registry.folder = testing::TempDir();
    auto served = ServedModel::Load(options);
    ASSERT_TRUE(served.ok()) << served.status();
    served_ = *std::move(served);
  }
  GenerationService& service() { return served_->service(); }

  std::unique_ptr<ServedModel> served_;
};

TEST_F(GenerationServiceTest, SuppressedTokensAreNeverGenerated) {
  Start();
  const Generated free = Generate(service(), Request("hello", 20));
  ASSERT_TRUE(free.status.ok()) << free.status;
  TinyModelOptions model;
  model.suppressed_tokens = {free.tokens[0], free.tokens[5]};
  Start(4, 8, "auto", "int8", model);
  const Generated other = Generate(service(), Request("hello", 20));
  ASSERT_TRUE(other.status.ok()) << other.status;
  EXPECT_EQ(other.tokens.size(), 20u);
  for (const int32_t token : model.suppressed_tokens) {
    EXPECT_EQ(std::count(other.tokens.begin(), other.tokens.end(), token), 0);
  }
}

TEST_F(GenerationServiceTest, GreedyIsRepeatableAndCountsTokens) {
  Start();
  const Generated a = Generate(service(), Request("hello", 20));
  const Generated b = Generate(service(), Request("hello", 20));
  ASSERT_TRUE(a.status.ok()) << a.status;
  EXPECT_TRUE(a.started);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.tokens.size(), 20u);
  EXPECT_EQ(a.finished.reason(), v1::MAX_TOKENS);
  EXPECT_EQ(a.finished.prompt_tokens(), 6);  // BOS and five letters
  EXPECT_EQ(a.finished.completion_tokens(), 20);
}

// Generated together and one after the other, the same tokens with the same
// log-probabilities for each adapter and without.
TEST_F(GenerationServiceTest, EachRequestNamesItsAdapter) {
  Start();
  const std::string folder = "service_adapters";
  for (const char* name : {"one", "two"}) {
    ASSERT_TRUE(WriteTinyAdapter(
                    absl::StrCat(testing::TempDir(), "/", folder, "/", name),
                    TinyConfig(TinyStructure::kGemma3),
                    {.seed = static_cast<uint64_t>(name[0])})
                    .ok());
    v1::LoadAdapterRequest load;
    load.set_name(name);
    load.set_path(absl::StrCat(folder, "/", name));
    const auto info = service().LoadAdapter(load);
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->linears(), 28);
  }
  EXPECT_EQ(service().ListAdapters().adapters_size(), 2);
  const std::vector<std::string> names = {"", "one", "two", "one"};
  const auto request = [&](size_t i) {
    v1::GenerateRequest r = Request(absl::StrCat("abcabc", i % 2), 90);
    r.set_logprobs(true);
    r.set_adapter(names[i]);
    return r;
  };
  std::vector<Generated> together(names.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < names.size(); ++i) {
    threads.emplace_back(
        [&, i] { together[i] = Generate(service(), request(i)); });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < names.size(); ++i) {
    SCOPED_TRACE(i);
    const Generated alone = Generate(service(), request(i));
    ASSERT_TRUE(alone.status.ok()) << alone.status;
    ASSERT_TRUE(together[i].status.ok()) << together[i].status;
    EXPECT_EQ(alone.tokens, together[i].tokens);
    EXPECT_EQ(alone.logprobs, together[i].logprobs);
    EXPECT_EQ(alone.adapter_sha256.size(), names[i].empty() ? 0u : 64u);
    // Kept keys and values of one adapter are no other's.
    v1::GenerateRequest base = request(i);
    base.set_adapter(names[i] == "" ? "one" : "");
    EXPECT_NE(Generate(service(), base).logprobs, alone.logprobs);
  }
  v1::UnloadAdapterRequest unload;
  unload.set_name("one");
  EXPECT_TRUE(service().UnloadAdapter(unload).ok());
  const absl::Status gone = Generate(service(), request(1)).status;
  EXPECT_EQ(gone.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(common::ErrorReason(gone), "ADAPTER_NOT_FOUND");
}

// Requests that end in every way, long enough to pass the window and the
// pages of 64 tokens, some greedy, some drawn.
std::vector<v1::GenerateRequest> ManyRequests() {
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 12; ++i) {
    v1::GenerateRequest request = Request(
        absl::StrCat("abcabcab", std::string(i, 'a' + i), "cab"), 60 + 11 * i);
    request.set_logprobs(true);
    if (i % 3 == 1) {
      request.mutable_sampling()->set_temperature(10);
      request.mutable_sampling()->set_top_k(2);
      request.mutable_sampling()->set_seed(i);
    }
    if (i % 3 == 2) {
      request.mutable_sampling()->set_repetition_penalty(1.1f);
    }
    if (i == 4) request.mutable_stopping()->add_stop("a");
    if (i == 5) request.mutable_stopping()->set_ignore_eos(false);
    if (i == 6) request.mutable_stopping()->set_max_tokens(1000);
    requests.push_back(request);
  }
  return requests;
}

class GuessesTest : public GenerationServiceTest,
                    public testing::WithParamInterface<const char*> {};

TEST_P(GuessesTest, ChangeNothingButTheSteps) {
  Start(4, 16, "off", GetParam());
  EXPECT_EQ(service().info().speculation(), "off");
  std::vector<Generated> plain;
  for (const auto& request : ManyRequests()) {
    plain.push_back(Generate(service(), request));
  }
  EXPECT_EQ(served_->scheduler().load().drafts.tried, 0);
  served_.reset();

  Start(4, 16, "always", GetParam());
  EXPECT_THAT(service().info().speculation(), HasSubstr("up to 8 tokens"));
  const std::vector<v1::GenerateRequest> requests = ManyRequests();
  std::vector<Generated> guessed(requests.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < requests.size(); ++i) {
    threads.emplace_back(
        [&, i] { guessed[i] = Generate(service(), requests[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(guessed[i].status.ok()) << guessed[i].status;
    EXPECT_EQ(guessed[i].tokens, plain[i].tokens) << i;
    EXPECT_EQ(guessed[i].text, plain[i].text) << i;
    EXPECT_EQ(guessed[i].logprobs, plain[i].logprobs) << i;
    EXPECT_EQ(guessed[i].finished.reason(), plain[i].finished.reason()) << i;
  }
  // Right and wrong guesses were there: rows were kept and taken back.
  const DraftCount drafts = served_->scheduler().load().drafts;
  EXPECT_GT(drafts.accepted, 50);
  EXPECT_GT(drafts.tried, drafts.accepted + 20);
}

// A stop string that ends within guesses that are right: the model repeats
// itself, and the string is longer than what it repeats.
TEST_P(GuessesTest, EndWhereTheOutputEnds) {
  const auto run = [&](const char* lookup, const std::string& stop, int i) {
    Start(4, 16, lookup, GetParam());
    v1::GenerateRequest request =
        Request(absl::StrCat("abcabcab", std::string(i, 'a' + i)), 60);
    if (!stop.empty()) request.mutable_stopping()->add_stop(stop);
    return Generate(service(), request);
  };
  for (int i = 1; i < 6; ++i) {
    const std::string text = run("off", "", i).text;
    ASSERT_GT(text.size(), 50u);
    const std::string stop = text.substr(10, 30);
    const Generated plain = run("off", stop, i);
    const Generated guessed = run("always", stop, i);
    EXPECT_EQ(plain.finished.reason(), v1::STOP_STRING);
    EXPECT_EQ(guessed.finished.reason(), v1::STOP_STRING);
    EXPECT_EQ(guessed.tokens, plain.tokens);
    EXPECT_EQ(guessed.text, plain.text);
    EXPECT_EQ(guessed.finished.completion_tokens(),
              plain.finished.completion_tokens());
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, GuessesTest,
                         testing::Values("int8", "f32"),
                         [](const auto& info) { return info.param; });

TEST_F(GenerationServiceTest, RequestsTogetherEqualEachAlone) {
  Start();
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 6; ++i) {
    requests.push_back(Request(std::string(3 + 11 * i, 'a' + i), 30));
    if (i % 2 == 1) {
      requests.back().mutable_sampling()->set_temperature(1);
      requests.back().mutable_sampling()->set_seed(i);
    }
  }
  std::vector<Generated> alone, together(requests.size());
  for (const auto& request : requests) {
    alone.push_back(Generate(service(), request));
  }
  std::vector<std::thread> threads;
  for (size_t i = 0; i < requests.size(); ++i) {
    threads.emplace_back(
        [&, i] { together[i] = Generate(service(), requests[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together[i].tokens, alone[i].tokens) << i;
    EXPECT_EQ(together[i].text, alone[i].text) << i;
  }
}

TEST_F(GenerationServiceTest, SeedDecidesTheSample) {
  Start();
  v1::GenerateRequest request = Request("seed", 30);
  request.mutable_sampling()->set_temperature(1.5);
  request.mutable_sampling()->set_seed(5);
  const Generated a = Generate(service(), request);
  const Generated b = Generate(service(), request);
  request.mutable_sampling()->set_seed(6);
  const Generated c = Generate(service(), request);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_NE(a.tokens, c.tokens);
}

TEST_F(GenerationServiceTest, StopStringAndStopTokenEndTheOutputBeforeThem) {
  Start();
  const Generated free = Generate(service(), Request("stop", 40));
  ASSERT_TRUE(free.status.ok());
  v1::GenerateRequest request = Request("stop", 40);
  request.mutable_stopping()->add_stop_token_ids(free.tokens[10]);
  const Generated by_token = Generate(service(), request);
  EXPECT_EQ(by_token.finished.reason(), v1::STOP_TOKEN);
  EXPECT_EQ(by_token.finished.stop_token(), free.tokens[10]);
  EXPECT_LE(by_token.tokens.size(), 10u);

  // Any whole characters of the free text serve as a stop string.
  ASSERT_GE(free.text.size(), 12u);
  size_t at = 6;
  while ((static_cast<uint8_t>(free.text[at]) & 0xC0) == 0x80) ++at;
  const std::string stop = free.text.substr(at, 3);
  request = Request("stop", 40);
  request.mutable_stopping()->add_stop(stop);
  const Generated by_text = Generate(service(), request);
  if (by_text.finished.reason() == v1::STOP_STRING) {
    EXPECT_EQ(by_text.text, free.text.substr(0, free.text.find(stop)));
    EXPECT_EQ(by_text.finished.stop_string(), stop);
  } else {
    // The text held U+FFFD where the bytes did not: nothing may be cut.
    EXPECT_EQ(by_text.text, free.text);
  }
}

TEST_F(GenerationServiceTest, LogprobsEqualThoseOfScoreTokens) {
  Start();
  v1::GenerateRequest request = Request("score", 12);
  request.set_logprobs(true);
  request.mutable_sampling()->set_repetition_penalty(1.3);
  const Generated generated = Generate(service(), request);
  ASSERT_TRUE(generated.status.ok());
  ASSERT_EQ(generated.logprobs.size(), 12u);

  v1::TokenizeRequest tokenize;
  tokenize.set_text("score");
  tokenize.set_add_bos(true);
  const auto prompt = service().Tokenize(tokenize);
  ASSERT_TRUE(prompt.ok());
  v1::ScoreTokensRequest score;
  *score.mutable_token_ids() = prompt->token_ids();
  score.mutable_token_ids()->Add(generated.tokens.begin(),
                                 generated.tokens.end());
  score.set_first_scored(prompt->token_ids_size());
  score.set_top_n(4);
  score.set_candidates_per_position(2);
  for (int32_t token : generated.tokens) {
    score.add_candidate_ids(token);
    score.add_candidate_ids(0);
  }
  const auto scores = service().ScoreTokens(score, {});
  ASSERT_TRUE(scores.ok()) << scores.status();
  ASSERT_EQ(scores->logprobs_size(), 12);
  ASSERT_EQ(scores->top_ids_size(), 48);
  for (int i = 0; i < 12; ++i) {
    EXPECT_NEAR(scores->logprobs(i), generated.logprobs[i], 1e-4) << i;
    EXPECT_EQ(scores->candidate_logprobs(2 * i), scores->logprobs(i));
    EXPECT_EQ(scores->argmax_ids(i), scores->top_ids(4 * i));
    EXPECT_GE(scores->top_logprobs(4 * i), scores->top_logprobs(4 * i + 1));
  }
}

TEST_F(GenerationServiceTest, LongInputsAreScoredInSteps) {
  Start();
  v1::ScoreTokensRequest request;
  for (int i = 0; i < 200; ++i) {
    request.add_token_ids(kTinyLetterA + i * 7 % 26);
  }
  request.set_top_n(kTinyVocab);
  const auto scores = service().ScoreTokens(request, {});
  ASSERT_TRUE(scores.ok()) << scores.status();
  ASSERT_EQ(scores->logprobs_size(), 199);
  for (int position = 0; position < 199; ++position) {
    double sum = 0;
    for (int i = 0; i < kTinyVocab; ++i) {
      sum += std::exp(scores->top_logprobs(position * kTinyVocab + i));
    }
    EXPECT_NEAR(sum, 1, 1e-4);
  }
}

TEST_F(GenerationServiceTest, FullQueueIsRefusedWithItsReason) {
  Start(/*max_sequences=*/1, /*max_queue=*/1);
  // The scheduler asks each waiting request whether it is still wanted; a
  // request that does not answer stays in the queue and fills it.
  absl::Notification asked, answer;
  CallContext context;
  context.cancelled = [&] {
    if (!asked.HasBeenNotified()) asked.Notify();
    answer.WaitForNotification();
    return false;
  };
  Generated waiting;
  std::thread thread(
      [&] { waiting = Generate(service(), Request("waits", 5), context); });
  asked.WaitForNotification();
  const absl::Status refused =
      Generate(service(), Request("one too many", 5)).status;
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(common::ErrorReason(refused), "QUEUE_FULL");
  answer.Notify();
  thread.join();
  EXPECT_TRUE(waiting.status.ok()) << waiting.status;
}

TEST_F(GenerationServiceTest, CancelledCallEndsWithinOneStepAndFreesTheSlot) {
  // Without guesses, so that a step is a token.
  Start(/*max_sequences=*/1, /*max_queue=*/4, "off");
  std::atomic<int> questions{0};
  CallContext context;
  context.cancelled = [&] { return ++questions > 5; };
  const Generated result = Generate(service(), Request("go", 200), context);
  EXPECT_EQ(result.status.code(), absl::StatusCode::kCancelled);
  // Asked once before each step.
  EXPECT_LE(result.tokens.size(), 5u);
  EXPECT_TRUE(Generate(service(), Request("free", 5)).status.ok());
}

TEST_F(GenerationServiceTest, PassedDeadlineEndsTheCall) {
  Start(/*max_sequences=*/1);
  CallContext context;
  context.deadline = absl::Now() - absl::Seconds(1);
  EXPECT_EQ(Generate(service(), Request("late", 5), context).status.code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Generate(service(), Request("free", 5)).status.ok());
}

TEST_F(GenerationServiceTest, DeadlinesPassInASlotAndInTheQueue) {
  Start(/*max_sequences=*/1, /*max_queue=*/4, "off");
  const auto slow = [] {
    absl::SleepFor(absl::Milliseconds(2));
    return false;
  };
  Generated queued;
  std::thread thread;
  CallContext context;
  context.cancelled = slow;
  context.deadline = absl::Now() + absl::Milliseconds(100);
  Generated result;
  result.status = service().Generate(
      Request("slow", 250), context, [&](const v1::GenerateResponse& response) {
        result.tokens.push_back(0);
        if (!response.has_started()) return true;
        thread = std::thread([&] {
          CallContext soon;
          soon.deadline = absl::Now() + absl::Milliseconds(20);
          queued = Generate(service(), Request("queued", 5), soon);
        });
        return true;
      });
  thread.join();
  EXPECT_EQ(result.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GT(result.tokens.size(), 1u);
  EXPECT_LT(result.tokens.size(), 60u);
  EXPECT_EQ(queued.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(queued.started);
  const v1::Load load = service().GetLoad();
  EXPECT_EQ(load.running() + load.queued(), 0);
  EXPECT_EQ(load.kv_bytes(), load.prefix_cache_bytes());
}

TEST_F(GenerationServiceTest, ReaderThatGoesAwayEndsTheGeneration) {
  Start(/*max_sequences=*/1);
  int writes = 0;
  const absl::Status status = service().Generate(
      Request("gone", 200), {}, [&](const v1::GenerateResponse&) {
        ++writes;
        return writes < 3;
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(writes, 3);
  EXPECT_TRUE(Generate(service(), Request("next", 5)).status.ok());
}

TEST_F(GenerationServiceTest, OutputEndsWhereTheContextEnds) {
  Start();
  const Generated result =
      Generate(service(), Request(std::string(250, 'x'), 100));
  EXPECT_EQ(result.finished.reason(), v1::CONTEXT_FULL);
  EXPECT_EQ(result.tokens.size(), kTinyContext - 251u);
}

TEST_F(GenerationServiceTest, BadRequestsAreRefusedByName) {
  Start();
  const auto refuse = [&](const v1::GenerateRequest& request,
                          const std::string& part) {
    const absl::Status status = Generate(service(), request).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << part;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    EXPECT_NE(common::ErrorReason(status), "");
  };
  refuse(v1::GenerateRequest(), "prompt");
  refuse(Request("", 5), "text");
  refuse(Request(std::string(kTinyContext, 'x'), 5), "context");
  v1::GenerateRequest request;
  request.mutable_token_ids()->add_ids(kTinyVocab);
  refuse(request, "vocabulary");
  request = Request("a", 5);
  request.mutable_sampling()->set_top_p(2);
  refuse(request, "top_p");
  request = Request("a", -1);
  refuse(request, "max_tokens");
  request = Request("a", 5);
  for (int i = 0; i < 17; ++i) request.mutable_stopping()->add_stop("s");
  refuse(request, "stop");
  request = Request("a", 5);
  request.mutable_stopping()->add_stop_token_ids(-1);
  refuse(request, "-1");
  request = Request("a", 5);
  request.set_priority(101);
  refuse(request, "priority");
  request.set_priority(-101);
  refuse(request, "priority");
  request = Request("a", 5);
  request.set_caller(std::string(257, 'x'));
  refuse(request, "caller");
  request = Request("a", 5);
  request.set_cache_salt(std::string(257, 'x'));
  refuse(request, "cache_salt");

  v1::ScoreTokensRequest score;
  score.add_token_ids(5);
  EXPECT_FALSE(service().ScoreTokens(score, {}).ok());
  score.add_token_ids(6);
  EXPECT_TRUE(service().ScoreTokens(score, {}).ok());
  score.set_first_scored(2);
  EXPECT_FALSE(service().ScoreTokens(score, {}).ok());
  score.set_first_scored(1);
  score.set_top_n(1025);
  EXPECT_FALSE(service().ScoreTokens(score, {}).ok());
  score.set_top_n(0);
  score.set_candidates_per_position(3);
  score.add_candidate_ids(1);
  EXPECT_FALSE(service().ScoreTokens(score, {}).ok());
}

TEST_F(GenerationServiceTest, PromptsAreSharedWithinASaltOnly) {
  Start();
  v1::GenerateRequest request = Request(std::string(60, 'x') + "abcdefghi", 12);
  const auto cached = [&](const std::string& salt) {
    request.set_cache_salt(salt);
    return Generate(service(), request).cached;
  };
  EXPECT_EQ(cached("one"), 0);
  EXPECT_EQ(cached("two"), 0);
  EXPECT_EQ(cached(""), 0);
  EXPECT_EQ(cached("one"), 64);
}

TEST_F(GenerationServiceTest, LoadTellsWhatIsHeld) {
  Start();
  const v1::Load before = service().GetLoad();
  EXPECT_EQ(before.kv_bytes(), 0);
  EXPECT_EQ(before.kv_bytes_limit(), service().info().kv_bytes());
  ASSERT_TRUE(
      Generate(service(), Request(std::string(100, 'x'), 40)).status.ok());
  const v1::Load load = service().GetLoad();
  EXPECT_EQ(load.running(), 0);
  EXPECT_EQ(load.queued(), 0);
  EXPECT_GT(load.kv_bytes(), 0);
  EXPECT_EQ(load.kv_bytes(), load.prefix_cache_bytes());
  EXPECT_EQ(load.prefix_tokens_asked(), 101);
  EXPECT_EQ(load.prefix_tokens_restored(), 0);
  EXPECT_EQ(load.preemptions(), 0);
}

TEST_F(GenerationServiceTest, InfoTellsWhatRuns) {
  Start();
  const v1::ServerInfo& info = service().info();
  EXPECT_EQ(info.artifact_sha256().size(), 64u);
  EXPECT_EQ(info.threads(), 2);
  EXPECT_EQ(info.thread_reason(), "--threads");
  EXPECT_EQ(info.max_context(), kTinyContext);
  EXPECT_EQ(info.vocab_size(), kTinyVocab);
  EXPECT_EQ(info.degraded_size(), 0);
  EXPECT_GT(info.kv_bytes(), 0);
}

}  // namespace
}  // namespace onegrid::inference
