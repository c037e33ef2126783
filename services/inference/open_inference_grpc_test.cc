// The protocol over loopback on a tiny model.
#include "services/inference/open_inference_grpc.h"

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/open_inference/grpc_predict_v2.grpc.pb.h"
#include "services/common/error_info.h"
#include "services/common/grpc_status.h"
#include "services/common/server.h"
#include "services/inference/model_slot.h"
#include "services/inference/open_inference_service.h"
#include "services/inference/open_inference_stream.h"
#include "services/inference/tiny_model.h"

namespace onegrid::inference {
namespace {

using ::testing::HasSubstr;
using Stub = oip::GRPCInferenceService::Stub;
using StreamResponse = oip::ModelStreamInferResponse;

bool IsFinal(const StreamResponse& response) {
  return response.infer_response()
      .parameters()
      .at("triton_final_response")
      .bool_param();
}

// Of a response whose first output is text_output.
std::string TextOf(const oip::ModelInferResponse& response) {
  return response.outputs(0).contents().bytes_contents(0);
}

class OpenInferenceGrpcTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path = absl::StrCat(
        testing::TempDir(), "/",
        testing::UnitTest::GetInstance()->current_test_info()->name(), ".gguf");
    ASSERT_TRUE(WriteTinyModel(path).ok());
    ServedModelOptions options;
    options.model_path = path;
    options.model_name = "tiny";
    options.threads = {1, "--threads"};
    options.max_sequences = 2;
    options.max_queue = 1;
    auto model = ModelSlot::Open(options, "");
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    service_ =
        std::make_unique<OpenInferenceService>(*model_, model_->Get()->name());
    grpc_ = std::make_unique<OpenInferenceGrpc>(*service_);
    common::ServerOptions server;
    server.on_drain = [this] { grpc_->Drain(); };
    runner_ = std::make_unique<common::ServerRunner>(server);
    runner_->AddService(grpc_.get());
    ASSERT_TRUE(runner_->Start().ok());
    stub_ = oip::GRPCInferenceService::NewStub(grpc::CreateChannel(
        runner_->address(), grpc::InsecureChannelCredentials()));
  }
  void TearDown() override { runner_->Stop(); }

  static oip::ModelInferRequest Request(const std::string& id, int max_tokens,
                                        bool stream = false) {
    oip::ModelInferRequest request;
    request.set_model_name("tiny");
    request.set_id(id);
    auto* input = request.add_inputs();
    input->set_name("text_input");
    input->set_datatype("BYTES");
    input->add_shape(1);
    input->mutable_contents()->add_bytes_contents("hello");
    auto& parameters = *request.mutable_parameters();
    parameters["max_tokens"].set_int64_param(max_tokens);
    parameters["ignore_eos"].set_bool_param(true);
    parameters["stream"].set_bool_param(stream);
    return request;
  }

  oip::ModelStatistics Statistics() {
    grpc::ClientContext context;
    oip::ModelStatisticsResponse response;
    EXPECT_TRUE(stub_
                    ->ModelStatistics(&context, oip::ModelStatisticsRequest(),
                                      &response)
                    .ok());
    return response.model_stats(0);
  }

  std::unique_ptr<ModelSlot> model_;
  std::unique_ptr<OpenInferenceService> service_;
  std::unique_ptr<OpenInferenceGrpc> grpc_;
  std::unique_ptr<common::ServerRunner> runner_;
  std::unique_ptr<Stub> stub_;
};

// Calls an rpc of the stub; the response must come.
template <typename Request, typename Response>
Response Call(Stub& stub,
              grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                           Response*),
              const Request& request) {
  grpc::ClientContext context;
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response;
}

TEST_F(OpenInferenceGrpcTest, ServerAndModelSayWhatTheyAre) {
  EXPECT_TRUE(Call(*stub_, &Stub::ServerLive, oip::ServerLiveRequest()).live());
  EXPECT_TRUE(
      Call(*stub_, &Stub::ServerReady, oip::ServerReadyRequest()).ready());
  EXPECT_EQ(
      Call(*stub_, &Stub::ServerMetadata, oip::ServerMetadataRequest()).name(),
      "onegrid");
  EXPECT_EQ(Call(*stub_, &Stub::RepositoryIndex, oip::RepositoryIndexRequest())
                .models(0)
                .name(),
            "tiny");
  oip::ModelReadyRequest ready;
  ready.set_name("tiny");
  EXPECT_TRUE(Call(*stub_, &Stub::ModelReady, ready).ready());
  oip::ModelMetadataRequest metadata;
  metadata.set_name("tiny");
  metadata.set_version("1");
  EXPECT_EQ(Call(*stub_, &Stub::ModelMetadata, metadata).inputs(0).name(),
            "text_input");
  oip::ModelConfigRequest config;
  config.set_name("tiny");
  EXPECT_EQ(Call(*stub_, &Stub::ModelConfig, config).config().name(), "tiny");
}

TEST_F(OpenInferenceGrpcTest, AnotherModelIsNotFoundByEveryRpc) {
  const auto expect = [](const grpc::Status& reply) {
    const absl::Status status = common::FromGrpc(reply);
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(common::ErrorReason(status), "MODEL_NOT_FOUND");
  };
  {
    grpc::ClientContext context;
    oip::ModelReadyResponse response;
    oip::ModelReadyRequest request;
    request.set_name("other");
    expect(stub_->ModelReady(&context, request, &response));
  }
  {
    grpc::ClientContext context;
    oip::ModelMetadataResponse response;
    expect(
        stub_->ModelMetadata(&context, oip::ModelMetadataRequest(), &response));
  }
  {
    grpc::ClientContext context;
    oip::ModelConfigResponse response;
    expect(stub_->ModelConfig(&context, oip::ModelConfigRequest(), &response));
  }
  {
    grpc::ClientContext context;
    oip::ModelStatisticsResponse response;
    oip::ModelStatisticsRequest request;
    request.set_name("other");
    expect(stub_->ModelStatistics(&context, request, &response));
  }
  {
    grpc::ClientContext context;
    oip::ModelInferResponse response;
    expect(stub_->ModelInfer(&context, oip::ModelInferRequest(), &response));
  }
}

TEST_F(OpenInferenceGrpcTest, InferAnswersWithAllThatWasAsked) {
  oip::ModelInferRequest request = Request("1", 5);
  for (const char* name : {"text_output", "output_ids", "num_output_tokens"}) {
    request.add_outputs()->set_name(name);
  }
  const auto response = Call(*stub_, &Stub::ModelInfer, request);
  EXPECT_EQ(response.id(), "1");
  ASSERT_EQ(response.outputs_size(), 3);
  EXPECT_EQ(response.outputs(1).shape(0), 5);
  EXPECT_EQ(response.outputs(2).contents().uint_contents(0), 5u);
  const auto again = Call(*stub_, &Stub::ModelInfer, request);
  EXPECT_EQ(TextOf(again), TextOf(response));
  EXPECT_EQ(Statistics().inference_count(), 2u);
}

TEST_F(OpenInferenceGrpcTest, TheInputComesFirstIfItIsNotExcluded) {
  oip::ModelInferRequest request = Request("1", 5);
  const std::string text = TextOf(Call(*stub_, &Stub::ModelInfer, request));
  (*request.mutable_parameters())["exclude_input_in_output"].set_bool_param(
      false);
  EXPECT_EQ(TextOf(Call(*stub_, &Stub::ModelInfer, request)), "hello" + text);
}

TEST_F(OpenInferenceGrpcTest, ErrorsCarryErrorInfoAndAreCounted) {
  oip::ModelInferRequest request = Request("1", 5, /*stream=*/true);
  grpc::ClientContext context;
  oip::ModelInferResponse response;
  const absl::Status status =
      common::FromGrpc(stub_->ModelInfer(&context, request, &response));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(common::ErrorReason(status), "INVALID_REQUEST");
  EXPECT_THAT(status.message(), HasSubstr("ModelStreamInfer"));

  request = Request("1", 5);
  (*request.mutable_parameters())["temperature"].set_int64_param(11);
  grpc::ClientContext context2;
  EXPECT_EQ(stub_->ModelInfer(&context2, request, &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Statistics().inference_stats().fail().count(), 2u);
}

TEST_F(OpenInferenceGrpcTest, AStreamedTextIsTheWholeText) {
  const std::string whole =
      TextOf(Call(*stub_, &Stub::ModelInfer, Request("1", 12)));
  for (const bool empty_final : {false, true}) {
    grpc::ClientContext context;
    auto stream = stub_->ModelStreamInfer(&context);
    oip::ModelInferRequest request = Request("2", 12, /*stream=*/true);
    (*request.mutable_parameters())["triton_enable_empty_final_response"]
        .set_bool_param(empty_final);
    request.add_outputs()->set_name("text_output");
    request.add_outputs()->set_name("finish_reason");
    ASSERT_TRUE(stream->Write(request));
    std::string text;
    int responses = 0;
    int reasons = 0;
    StreamResponse response;
    while (stream->Read(&response)) {
      ++responses;
      EXPECT_EQ(response.error_message(), "");
      EXPECT_EQ(response.infer_response().id(), "2");
      reasons += response.infer_response().outputs_size() == 2;
      if (response.infer_response().outputs_size() > 0) {
        text += TextOf(response.infer_response());
      }
      if (IsFinal(response)) break;
    }
    EXPECT_EQ(response.infer_response().outputs_size(), empty_final ? 0 : 2);
    EXPECT_EQ(text, whole);
    EXPECT_EQ(reasons, 1);
    EXPECT_GT(responses, 2);
    stream->WritesDone();
    EXPECT_FALSE(stream->Read(&response));
    EXPECT_TRUE(stream->Finish().ok());
  }
}

TEST_F(OpenInferenceGrpcTest, RequestsOfAStreamAreToldApartAndErrorsEndNone) {
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(Request("a", 8)));
  oip::ModelInferRequest bad = Request("bad", 8);
  bad.mutable_inputs(0)->set_datatype("FP32");
  ASSERT_TRUE(stream->Write(bad));
  std::map<std::string, StreamResponse> last;
  StreamResponse response;
  while (last.size() < 2 && stream->Read(&response)) {
    last[response.infer_response().id()] = response;
  }
  EXPECT_EQ(last["a"].error_message(), "");
  EXPECT_THAT(last["bad"].error_message(), HasSubstr("text_input"));
  EXPECT_TRUE(IsFinal(last["bad"]));
  ASSERT_TRUE(stream->Write(Request("b", 8)));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.infer_response().id(), "b");
  EXPECT_EQ(TextOf(response.infer_response()),
            TextOf(last["a"].infer_response()));
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(OpenInferenceGrpcTest, EveryRequestOfABusyStreamIsAnswered) {
  constexpr int kRequests = 3 * kMaxStreamRequests;
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  std::thread writer([&stream] {
    for (int i = 0; i < kRequests; ++i) {
      EXPECT_TRUE(stream->Write(Request(absl::StrCat(i), 2)));
    }
    stream->WritesDone();
  });
  std::map<std::string, int> answers;
  int refused = 0;
  StreamResponse response;
  while (stream->Read(&response)) {
    ++answers[response.infer_response().id()];
    // Two run and one waits.
    refused += !response.error_message().empty();
  }
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(answers.size(), static_cast<size_t>(kRequests));
  for (const auto& [id, count] : answers) EXPECT_EQ(count, 1) << id;
  EXPECT_LT(refused, kRequests);
  const oip::ModelStatistics statistics = Statistics();
  EXPECT_EQ(statistics.inference_stats().fail().count(),
            static_cast<uint64_t>(refused));
}

TEST_F(OpenInferenceGrpcTest, ACancelledStreamEndsItsRequests) {
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(Request("long", 250, /*stream=*/true)));
  StreamResponse response;
  ASSERT_TRUE(stream->Read(&response));
  context.TryCancel();
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (model_->Get()->scheduler().load().running > 0 &&
         absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_EQ(model_->Get()->scheduler().load().running, 0);
}

TEST_F(OpenInferenceGrpcTest, TimeoutsAndDeadlinesEndARequest) {
  oip::ModelInferRequest request = Request("1", 250);
  (*request.mutable_parameters())["timeout"].set_int64_param(1);
  grpc::ClientContext context;
  oip::ModelInferResponse response;
  EXPECT_EQ(stub_->ModelInfer(&context, request, &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);

  grpc::ClientContext context2;
  auto stream = stub_->ModelStreamInfer(&context2);
  ASSERT_TRUE(stream->Write(request));
  StreamResponse last;
  ASSERT_TRUE(stream->Read(&last));
  EXPECT_THAT(last.error_message(), HasSubstr("deadline"));
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());

  grpc::ClientContext context3;
  context3.set_deadline(std::chrono::system_clock::now() +
                        std::chrono::milliseconds(100));
  stream = stub_->ModelStreamInfer(&context3);
  EXPECT_FALSE(stream->Read(&last));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(OpenInferenceGrpcTest, DrainingDoesNotWaitForIdleStreams) {
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(Request("1", 1)));
  StreamResponse response;
  ASSERT_TRUE(stream->Read(&response));
  const absl::Time start = absl::Now();
  std::thread reader([&] {
    EXPECT_FALSE(stream->Read(&response));
    EXPECT_FALSE(stream->Finish().ok());
  });
  runner_->Stop();
  reader.join();
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
}

// It ends with the last answer, not when the time to drain is over.
TEST_F(OpenInferenceGrpcTest, DrainingEndsBusyStreamsWithTheirLastAnswer) {
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(Request("1", 200)));
  // Reads as answers come: what a caller has not read in time may be lost.
  int answers = 0;
  std::thread reader([&] {
    StreamResponse response;
    while (stream->Read(&response)) ++answers;
    stream->Finish().ok();
  });
  // Should it be over before it is seen, the stream is idle.
  for (int i = 0; i < 10'000; ++i) {
    if (model_->Get()->scheduler().load().running > 0) break;
    absl::SleepFor(absl::Microseconds(100));
  }
  const absl::Time start = absl::Now();
  runner_->Stop();
  reader.join();
  EXPECT_EQ(answers, 1);
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
}

// The answer is written and not read yet when the end begins.
TEST_F(OpenInferenceGrpcTest, DrainingLeavesTheLastAnswerTimeToArrive) {
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(Request("1", 200)));
  for (int i = 0; i < 10'000; ++i) {
    if (model_->Get()->scheduler().load().running > 0) break;
    absl::SleepFor(absl::Microseconds(100));
  }
  int answers = 0;
  std::thread reader([&] {
    absl::SleepFor(kTimeToArrive / 4);
    StreamResponse response;
    while (stream->Read(&response)) ++answers;
    stream->Finish().ok();
  });
  runner_->Stop();
  reader.join();
  EXPECT_EQ(answers, 1);
}

}  // namespace
}  // namespace onegrid::inference
