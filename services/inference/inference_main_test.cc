// Goal: the binary starts, stops and fails the way people and controllers
// expect. Method: child processes on a tiny model.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/onegrid/v1/generation.grpc.pb.h"
#include "services/common/files.h"
#include "services/inference/tiny_model.h"

namespace onegrid::inference {
namespace {

using ::testing::HasSubstr;

constexpr char kBinary[] = "services/inference/inference";

class InferenceMainTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string name =
        testing::UnitTest::GetInstance()->current_test_info()->name();
    model_ = absl::StrCat(testing::TempDir(), "/", name, ".gguf");
    errors_ = model_ + ".log";
    port_file_ = model_ + ".port";
    ASSERT_TRUE(WriteTinyModel(model_).ok());
  }
  void TearDown() override {
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
  }

  void Start(std::vector<std::string> flags) {
    flags.insert(flags.begin(), kBinary);
    std::vector<char*> argv;
    for (std::string& flag : flags) argv.push_back(flag.data());
    argv.push_back(nullptr);
    child_ = ::fork();
    ASSERT_GE(child_, 0);
    if (child_ != 0) return;
    const int log = ::open(errors_.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    ::dup2(log, STDERR_FILENO);
    ::execv(kBinary, argv.data());
    ::_exit(127);
  }

  // Exit code, or minus the number of the signal that ended the child.
  int Wait() {
    int status = 0;
    ::waitpid(child_, &status, 0);
    child_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  std::string Errors() { return *common::ReadFile(errors_); }

  std::string Address() {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (absl::Now() < deadline) {
      const auto address = common::ReadFile(port_file_);
      if (address.ok()) return *address;
      absl::SleepFor(absl::Milliseconds(10));
    }
    ADD_FAILURE() << "no port file";
    return "";
  }

  void StartServing() {
    Start({absl::StrCat("--model=", model_),
           absl::StrCat("--port_file=", port_file_), "--threads=1"});
    stub_ = v1::GenerationService::NewStub(
        grpc::CreateChannel(Address(), grpc::InsecureChannelCredentials()));
  }

  static v1::GenerateRequest Request(int max_tokens) {
    v1::GenerateRequest request;
    request.set_text("abc");
    request.mutable_stopping()->set_max_tokens(max_tokens);
    request.mutable_stopping()->set_ignore_eos(true);
    return request;
  }

  std::string model_, errors_, port_file_;
  pid_t child_ = 0;
  std::unique_ptr<v1::GenerationService::Stub> stub_;
};

TEST_F(InferenceMainTest, TermFinishesStreamsAndExitsWithZero) {
  StartServing();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Request(200));
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  ::kill(child_, SIGTERM);
  while (reader->Read(&response)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(response.finished().completion_tokens(), 200);
  EXPECT_EQ(Wait(), 0) << Errors();
  EXPECT_FALSE(common::ReadFile(port_file_).ok());
}

TEST_F(InferenceMainTest, KilledServerLeavesNothingThatStopsTheNext) {
  StartServing();
  ::kill(child_, SIGKILL);
  EXPECT_EQ(Wait(), -SIGKILL);
  ::unlink(port_file_.c_str());
  StartServing();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Request(3));
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(InferenceMainTest, PromptsAreNotLogged) {
  StartServing();
  {
    grpc::ClientContext context;
    v1::GenerateRequest request = Request(3);
    request.set_text("confidential");
    request.mutable_sampling()->set_top_p(7);
    auto reader = stub_->Generate(&context, request);
    v1::GenerateResponse response;
    while (reader->Read(&response)) {
    }
    EXPECT_EQ(reader->Finish().error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
  }
  // The server says goodbye to an open connection, and waits for seconds if
  // the client is not looking.
  stub_.reset();
  ::kill(child_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_THAT(Errors(), HasSubstr("rpc_failed"));
  EXPECT_THAT(Errors(), testing::Not(HasSubstr("confidential")));
}

TEST_F(InferenceMainTest, WhatCannotBeServedEndsTheProcessWithAMessage) {
  const std::string model_flag = absl::StrCat("--model=", model_);
  const struct {
    std::vector<std::string> flags;
    const char* message;
  } cases[] = {
      {{}, "--model"},
      {{"--model=/nonexistent.gguf"}, "/nonexistent.gguf"},
      {{model_flag, "--artifact_sha256=00"}, "SHA-256"},
      {{model_flag, "--activations=int3"}, "--activations"},
      {{model_flag, "--max_sequences=0"}, "max_sequences"},
      {{model_flag, "--kv_budget=1KB"}, "--kv_budget"},
      {{model_flag, "--kv_budget=some"}, "some"},
      {{model_flag, "--port=65536"}, "65536"},
      {{model_flag, "extra"}, "extra"},
  };
  for (const auto& c : cases) {
    Start(c.flags);
    EXPECT_EQ(Wait(), 1) << c.message;
    EXPECT_THAT(Errors(), HasSubstr(c.message));
  }
  const std::string bytes = *common::ReadFile(model_);
  ASSERT_TRUE(
      common::WriteFileAtomic(model_, bytes.substr(0, bytes.size() / 2)).ok());
  Start({model_flag});
  EXPECT_EQ(Wait(), 1);
  EXPECT_THAT(Errors(), HasSubstr(model_));
}

}  // namespace
}  // namespace onegrid::inference
