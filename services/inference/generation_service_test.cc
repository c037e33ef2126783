// Goal: what callers of the service rely on, on a tiny random model.
#include "services/inference/generation_service.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/inference/generation_testing.h"
#include "services/inference/tiny_adapter.h"

namespace onegrid::inference {
namespace {

using ::testing::HasSubstr;

TEST_F(GenerationServiceTest, SuppressedTokensAreNeverGenerated) {
  Start();
  const Generated free = Generate(service(), TextRequest("hello", 20));
  ASSERT_TRUE(free.status.ok()) << free.status;
  TinyModelOptions model;
  model.suppressed_tokens = {free.tokens[0], free.tokens[5]};
  Start(4, 8, "auto", "int8", model);
  const Generated other = Generate(service(), TextRequest("hello", 20));
  ASSERT_TRUE(other.status.ok()) << other.status;
  EXPECT_EQ(other.tokens.size(), 20u);
  for (const int32_t token : model.suppressed_tokens) {
    EXPECT_EQ(std::count(other.tokens.begin(), other.tokens.end(), token), 0);
  }
}

TEST_F(GenerationServiceTest, GreedyIsRepeatableAndCountsTokens) {
  Start();
  const Generated a = Generate(service(), TextRequest("hello", 20));
  const Generated b = Generate(service(), TextRequest("hello", 20));
  ASSERT_TRUE(a.status.ok()) << a.status;
  EXPECT_EQ(a.started.prompt_tokens(), 6);
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
    // Longer than a page of keys and values.
    v1::GenerateRequest r =
        TextRequest(absl::StrCat(i % 2, std::string(80, 'a')), 90);
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
    EXPECT_EQ(alone.started.adapter_sha256().size(),
              names[i].empty() ? 0u : 64u);
    // Kept keys and values of one adapter are no other's.
    EXPECT_EQ(alone.started.cached_tokens(), 81);
    v1::GenerateRequest other = request(i);
    other.set_adapter(names[i].empty() ? "one" : "");
    const Generated without = Generate(service(), other);
    EXPECT_NE(without.logprobs, alone.logprobs);
    // Nobody asked "one" for the first prompt.
    if (i == 0) {
      EXPECT_EQ(without.started.cached_tokens(), 0);
    }
  }
  v1::UnloadAdapterRequest unload;
  unload.set_name("one");
  EXPECT_TRUE(service().UnloadAdapter(unload).ok());
  const absl::Status gone = Generate(service(), request(1)).status;
  EXPECT_EQ(gone.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(common::ErrorReason(gone), "ADAPTER_NOT_FOUND");
}

TEST_F(GenerationServiceTest, RequestsTogetherEqualEachAlone) {
  Start();
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 6; ++i) {
    requests.push_back(TextRequest(std::string(3 + 11 * i, 'a' + i), 30));
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
  v1::GenerateRequest request = TextRequest("seed", 30);
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
  const Generated free = Generate(service(), TextRequest("stop", 40));
  ASSERT_TRUE(free.status.ok());
  v1::GenerateRequest request = TextRequest("stop", 40);
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
  request = TextRequest("stop", 40);
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
  v1::GenerateRequest request = TextRequest("score", 12);
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

TEST_F(GenerationServiceTest, OutputEndsWhereTheContextEnds) {
  Start();
  const Generated result =
      Generate(service(), TextRequest(std::string(250, 'x'), 100));
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
  refuse(TextRequest("", 5), "text");
  refuse(TextRequest(std::string(kTinyContext, 'x'), 5), "context");
  v1::GenerateRequest request;
  request.mutable_token_ids()->add_ids(kTinyVocab);
  refuse(request, "vocabulary");
  request = TextRequest("a", 5);
  request.mutable_sampling()->set_top_p(2);
  refuse(request, "top_p");
  request = TextRequest("a", -1);
  refuse(request, "max_tokens");
  request = TextRequest("a", 5);
  for (int i = 0; i < 17; ++i) request.mutable_stopping()->add_stop("s");
  refuse(request, "stop");
  request = TextRequest("a", 5);
  request.mutable_stopping()->add_stop_token_ids(-1);
  refuse(request, "-1");
  request = TextRequest("a", 5);
  request.set_priority(101);
  refuse(request, "priority");
  request.set_priority(-101);
  refuse(request, "priority");
  request = TextRequest("a", 5);
  request.set_caller(std::string(257, 'x'));
  refuse(request, "caller");
  request = TextRequest("a", 5);
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
  v1::GenerateRequest request =
      TextRequest(std::string(60, 'x') + "abcdefghi", 12);
  const auto cached = [&](const std::string& salt) {
    request.set_cache_salt(salt);
    return Generate(service(), request).started.cached_tokens();
  };
  EXPECT_EQ(cached("one"), 0);
  EXPECT_EQ(cached("two"), 0);
  EXPECT_EQ(cached(""), 0);
  EXPECT_EQ(cached("one"), 64);
}

TEST_F(GenerationServiceTest, ScoresAreSharedWithinASaltOnly) {
  Start();
  const std::vector<int32_t> tokens =
      served_->tokenizer().Encode(std::string(80, 'x'), true, false);
  const auto restored = [&](const std::string& salt) {
    v1::ScoreTokensRequest request;
    request.mutable_token_ids()->Add(tokens.begin(), tokens.end());
    request.set_first_scored(static_cast<int>(tokens.size()) - 1);
    request.set_cache_salt(salt);
    const int64_t before = service().GetLoad().prefix_tokens_restored();
    EXPECT_TRUE(service().ScoreTokens(request, {}).ok());
    return service().GetLoad().prefix_tokens_restored() - before;
  };
  EXPECT_EQ(restored("one"), 0);
  EXPECT_EQ(restored("two"), 0);
  EXPECT_EQ(restored("one"), 64);
  // As a prompt of the same salt.
  v1::GenerateRequest request = TextRequest(std::string(80, 'x'), 1);
  request.set_cache_salt("two");
  EXPECT_EQ(Generate(service(), request).started.cached_tokens(), 64);
}

TEST_F(GenerationServiceTest, ThePlaceOfScoresIsChecked) {
  Start();
  v1::ScoreTokensRequest request;
  request.add_token_ids(kTinyLetterA);
  request.add_token_ids(kTinyLetterA);
  const auto reason = [&] {
    return common::ErrorReason(service().ScoreTokens(request, {}).status());
  };
  request.set_priority(101);
  EXPECT_EQ(reason(), "INVALID_REQUEST");
  request.set_priority(-100);
  request.set_caller(std::string(257, 'c'));
  EXPECT_EQ(reason(), "INVALID_REQUEST");
  request.set_caller(std::string(256, 'c'));
  EXPECT_TRUE(service().ScoreTokens(request, {}).ok());
}

// While it runs; nothing is left of it afterwards.
TEST_F(GenerationServiceTest, LoadTellsWhichAdaptersRun) {
  Start();
  ASSERT_TRUE(WriteTinyAdapter(testing::TempDir() + "/load_adapters/one",
                               TinyConfig(TinyStructure::kGemma3), {})
                  .ok());
  v1::LoadAdapterRequest load;
  load.set_name("one");
  load.set_path("load_adapters/one");
  ASSERT_TRUE(service().LoadAdapter(load).ok());
  v1::GenerateRequest request = TextRequest("hello", 100);
  request.set_adapter("one");
  v1::Load during;
  ASSERT_TRUE(service()
                  .Generate(request, {},
                            [&](const v1::GenerateResponse& response) {
                              if (response.has_started()) {
                                during = service().GetLoad();
                              }
                              return true;
                            })
                  .ok());
  ASSERT_EQ(during.adapter_running().count("one"), 1u);
  EXPECT_EQ(during.adapter_running().at("one"), 1);
  EXPECT_TRUE(during.adapter_queued().empty());
  EXPECT_EQ(during.max_adapters(), 16);
  EXPECT_TRUE(service().GetLoad().adapter_running().empty());
}

TEST_F(GenerationServiceTest, AfterDrainNothingNewIsTakenAndTheRestGoesOn) {
  Start();
  v1::GenerateRequest request = TextRequest("hello", 50);
  int tokens = 0;
  absl::Status refused, score_refused;
  ASSERT_TRUE(service()
                  .Generate(request, {},
                            [&](const v1::GenerateResponse& response) {
                              if (response.has_started()) {
                                service().Drain();
                                refused = Generate(service(), request).status;
                                v1::ScoreTokensRequest score;
                                score.add_token_ids(kTinyLetterA);
                                score.add_token_ids(kTinyLetterA);
                                score_refused =
                                    service().ScoreTokens(score, {}).status();
                              }
                              tokens += response.delta().token_ids_size();
                              return true;
                            })
                  .ok());
  EXPECT_EQ(tokens, 50);
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(common::ErrorReason(refused), "SERVER_DRAINING");
  EXPECT_EQ(common::ErrorReason(score_refused), "SERVER_DRAINING");
}

TEST_F(GenerationServiceTest, LoadTellsWhatIsHeld) {
  Start();
  const v1::Load before = service().GetLoad();
  EXPECT_EQ(before.kv_bytes(), 0);
  EXPECT_EQ(before.kv_bytes_limit(), service().info().kv_bytes());
  ASSERT_TRUE(
      Generate(service(), TextRequest(std::string(100, 'x'), 40)).status.ok());
  const v1::Load load = service().GetLoad();
  EXPECT_EQ(load.running(), 0);
  EXPECT_EQ(load.queued(), 0);
  EXPECT_GT(load.kv_bytes(), 0);
  EXPECT_EQ(load.kv_bytes(), load.prefix_cache_bytes());
  EXPECT_EQ(load.kv_bytes(), load.idle_prefix_cache_bytes());
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
