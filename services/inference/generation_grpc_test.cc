// One call of each kind over loopback.
#include "services/inference/generation_grpc.h"

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/google/rpc/error_details.pb.h"
#include "services/common/error_info.h"
#include "services/common/grpc_status.h"
#include "services/common/server.h"
#include "services/inference/model_slot.h"
#include "services/inference/tiny_model.h"

namespace onegrid::inference {
namespace {

class GenerationGrpcTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing::TempDir() + "/grpc_" + test->name();
    std::filesystem::create_directories(folder_);
    const std::string path = folder_ + "/first.gguf";
    ASSERT_TRUE(WriteTinyModel(path).ok());
    ServedModelOptions options;
    options.model_path = path;
    options.threads = {1, "--threads"};
    options.max_sequences = 1;
    options.max_queue = 1;
    auto model = ModelSlot::Open(options, folder_);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    service_ = std::make_unique<GenerationGrpc>(*model_, [this] { ++drains_; });
    runner_ = std::make_unique<common::ServerRunner>(common::ServerOptions());
    runner_->AddService(service_.get());
    ASSERT_TRUE(runner_->Start().ok());
    stub_ = v1::GenerationService::NewStub(grpc::CreateChannel(
        runner_->address(), grpc::InsecureChannelCredentials()));
  }
  void TearDown() override { runner_->Stop(); }

  std::string folder_;
  std::unique_ptr<ModelSlot> model_;
  std::atomic<int> drains_ = 0;
  std::unique_ptr<GenerationGrpc> service_;
  std::unique_ptr<common::ServerRunner> runner_;
  std::unique_ptr<v1::GenerationService::Stub> stub_;
};

TEST_F(GenerationGrpcTest, GenerateStreamsStartedDeltasFinished) {
  grpc::ClientContext context;
  v1::GenerateRequest request;
  request.set_text("hello");
  request.mutable_stopping()->set_max_tokens(5);
  request.mutable_stopping()->set_ignore_eos(true);
  auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_TRUE(response.has_started());
  int tokens = 0;
  while (reader->Read(&response) && response.has_delta()) {
    tokens += response.delta().token_ids_size();
  }
  EXPECT_EQ(tokens, 5);
  EXPECT_EQ(response.finished().completion_tokens(), 5);
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(GenerationGrpcTest, UnaryCallsAnswer) {
  v1::TokenizeRequest tokenize;
  tokenize.set_text("abc");
  tokenize.set_add_bos(true);
  v1::TokenizeResponse tokens;
  grpc::ClientContext context1;
  ASSERT_TRUE(stub_->Tokenize(&context1, tokenize, &tokens).ok());
  ASSERT_EQ(tokens.token_ids_size(), 4);
  EXPECT_EQ(tokens.token_ids(1), kTinyLetterA);

  v1::ScoreTokensRequest score;
  *score.mutable_token_ids() = tokens.token_ids();
  v1::ScoreTokensResponse scores;
  grpc::ClientContext context2;
  ASSERT_TRUE(stub_->ScoreTokens(&context2, score, &scores).ok());
  EXPECT_EQ(scores.logprobs_size(), 3);

  v1::ServerInfo info;
  grpc::ClientContext context3;
  ASSERT_TRUE(
      stub_->GetServerInfo(&context3, v1::GetServerInfoRequest(), &info).ok());
  EXPECT_EQ(info.architecture(), "gemma3");

  v1::Load load;
  grpc::ClientContext context4;
  ASSERT_TRUE(stub_->GetLoad(&context4, v1::GetLoadRequest(), &load).ok());
  EXPECT_EQ(load.running(), 0);
  EXPECT_EQ(load.kv_bytes_limit(), info.kv_bytes());
}

// A stream that began with the old model ends with it, and what begins later
// has the new one.
TEST_F(GenerationGrpcTest, AnotherModelDropsNoStream) {
  ASSERT_TRUE(
      WriteTinyModel(folder_ + "/second.gguf", {.seed = 2, .types = {}}).ok());
  v1::GenerateRequest request;
  request.set_text("hello");
  request.mutable_stopping()->set_max_tokens(200);
  request.mutable_stopping()->set_ignore_eos(true);
  request.set_logprobs(true);
  struct Stream {
    std::string sha256;
    std::vector<float> logprobs;
  };
  const auto read = [&](grpc::ClientReader<v1::GenerateResponse>& reader,
                        Stream* stream) {
    v1::GenerateResponse response;
    while (reader.Read(&response)) {
      if (response.has_started()) {
        stream->sha256 = response.started().artifact_sha256();
      }
      const auto& logprobs = response.delta().logprobs();
      stream->logprobs.insert(stream->logprobs.end(), logprobs.begin(),
                              logprobs.end());
    }
    const grpc::Status status = reader.Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
  };
  const auto run = [&] {
    grpc::ClientContext context;
    Stream stream;
    read(*stub_->Generate(&context, request), &stream);
    return stream;
  };
  const Stream before = run();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse first;
  ASSERT_TRUE(reader->Read(&first));
  v1::LoadModelRequest load;
  load.set_path("second.gguf");
  v1::ServerInfo info;
  grpc::ClientContext load_context;
  const grpc::Status loaded = stub_->LoadModel(&load_context, load, &info);
  ASSERT_TRUE(loaded.ok()) << loaded.error_message();
  const Stream after = run();
  Stream during;
  read(*reader, &during);
  EXPECT_EQ(first.started().artifact_sha256(), before.sha256);
  EXPECT_EQ(during.logprobs, before.logprobs);
  EXPECT_EQ(after.sha256, info.artifact_sha256());
  EXPECT_NE(after.sha256, before.sha256);
  EXPECT_NE(after.logprobs, before.logprobs);
}

TEST_F(GenerationGrpcTest, DrainEndsTheTakingOfRequestsButNoStream) {
  v1::GenerateRequest request;
  request.set_text("hello");
  request.mutable_stopping()->set_max_tokens(200);
  request.mutable_stopping()->set_ignore_eos(true);
  grpc::ClientContext stream_context;
  auto stream = stub_->Generate(&stream_context, request);
  v1::GenerateResponse response;
  ASSERT_TRUE(stream->Read(&response));
  const auto drain = [&] {
    grpc::ClientContext context;
    v1::DrainResponse left;
    return stub_->Drain(&context, v1::DrainRequest(), &left);
  };
  EXPECT_TRUE(drain().ok());
  EXPECT_TRUE(drain().ok());
  EXPECT_EQ(drains_, 2);
  grpc::ClientContext refused_context;
  auto refused = stub_->Generate(&refused_context, request);
  EXPECT_FALSE(refused->Read(&response));
  EXPECT_EQ(common::ErrorReason(common::FromGrpc(refused->Finish())),
            "SERVER_DRAINING");
  v1::LoadModelRequest load;
  load.set_path("first.gguf");
  v1::ServerInfo info;
  grpc::ClientContext load_context;
  EXPECT_EQ(common::ErrorReason(
                common::FromGrpc(stub_->LoadModel(&load_context, load, &info))),
            "SERVER_DRAINING");
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(response.finished().completion_tokens(), 200);
  EXPECT_TRUE(stream->Finish().ok());
}

// It was replaced while its request held its scheduler up.
TEST_F(GenerationGrpcTest, AReplacedModelDrainsAndCounts) {
  const ModelSlot::Handle old = model_->Get();
  absl::Notification asked, go;
  std::atomic<bool> first = true;
  CallContext context;
  context.cancelled = [&] {
    if (first.exchange(false)) {
      asked.Notify();
      go.WaitForNotification();
    }
    return false;
  };
  v1::GenerateRequest request;
  request.set_text("hello");
  absl::Status status;
  std::thread call([&] {
    status = old->service().Generate(
        request, context, [](const v1::GenerateResponse&) { return true; });
  });
  asked.WaitForNotification();
  ASSERT_TRUE(model_->Replace("first.gguf", "").ok());
  EXPECT_EQ(model_->Get()->service().GetLoad().queued(), 0);
  EXPECT_EQ(model_->GetLoad().running() + model_->GetLoad().queued(), 1);
  model_->Drain();
  const absl::Status refused = old->service().Generate(
      request, {}, [](const v1::GenerateResponse&) { return true; });
  EXPECT_EQ(common::ErrorReason(refused), "SERVER_DRAINING");
  go.Notify();
  call.join();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(model_->GetLoad().running() + model_->GetLoad().queued(), 0);
}

TEST_F(GenerationGrpcTest, DrainIsForThoseWhoMay) {
  GenerationGrpc service(*model_);
  v1::DrainResponse response;
  const absl::Status status =
      common::FromGrpc(service.Drain(nullptr, nullptr, &response));
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(common::ErrorReason(status), "DRAIN_NOT_ALLOWED");
}

TEST_F(GenerationGrpcTest, AModelThatCannotBeLoadedLeavesTheOldOne) {
  const auto load = [&](const std::string& path, const std::string& sha256) {
    v1::LoadModelRequest request;
    request.set_path(path);
    request.set_artifact_sha256(sha256);
    v1::ServerInfo info;
    grpc::ClientContext context;
    return common::FromGrpc(stub_->LoadModel(&context, request, &info));
  };
  EXPECT_EQ(common::ErrorReason(load("../first.gguf", "")),
            "MODELS_NOT_ALLOWED");
  EXPECT_EQ(load("missing.gguf", "").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(common::ErrorReason(load("first.gguf", std::string(64, '0'))),
            "DIGEST_MISMATCH");
  const auto model = model_->Get();
  EXPECT_TRUE(
      load("first.gguf", model->service().info().artifact_sha256()).ok());
  EXPECT_NE(model_->Get(), model);
}

TEST_F(GenerationGrpcTest, ErrorsCarryErrorInfo) {
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, v1::GenerateRequest());
  v1::GenerateResponse response;
  EXPECT_FALSE(reader->Read(&response));
  const absl::Status status = common::FromGrpc(reader->Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(common::ErrorReason(status), "INVALID_REQUEST");
}

TEST_F(GenerationGrpcTest, CancelledCallFreesTheOnlySlotAndFullQueueSaysRetry) {
  v1::GenerateRequest request;
  request.set_text("long");
  request.mutable_stopping()->set_max_tokens(250);
  request.mutable_stopping()->set_ignore_eos(true);
  // One call runs, one waits, so a third is refused. A tiny model is fast:
  // calls are added until one finds the queue full.
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> calls;
  grpc::Status refused;
  for (int i = 0; i < 200 && refused.ok(); ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    calls.push_back(stub_->Generate(contexts.back().get(), request));
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    calls.push_back(stub_->Generate(contexts.back().get(), request));
    grpc::ClientContext context;
    auto reader = stub_->Generate(&context, request);
    v1::GenerateResponse response;
    if (!reader->Read(&response)) refused = reader->Finish();
    context.TryCancel();
  }
  ASSERT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(refused.error_details()));
  ASSERT_EQ(details.details_size(), 2);
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(details.details(1).UnpackTo(&retry));
  EXPECT_GT(retry.retry_delay().seconds(), 0);

  for (auto& context : contexts) context->TryCancel();
  for (auto& call : calls) {
    v1::GenerateResponse response;
    while (call->Read(&response)) {
    }
    call->Finish();
  }
  // The slot is free again as soon as the scheduler has seen the last cancel,
  // for which its thread has to run.
  grpc::Status status;
  const absl::Time end = absl::Now() + absl::Seconds(10);
  do {
    grpc::ClientContext context;
    auto reader = stub_->Generate(&context, request);
    v1::GenerateResponse response;
    while (reader->Read(&response)) {
    }
    status = reader->Finish();
    if (!status.ok()) absl::SleepFor(absl::Milliseconds(1));
  } while (!status.ok() && absl::Now() < end);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

}  // namespace
}  // namespace onegrid::inference
