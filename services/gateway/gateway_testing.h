// What tests of the gateway share: the gateway in front of a fake backend over
// gRPC, called directly or served over HTTP.
#ifndef SERVICES_GATEWAY_GATEWAY_TESTING_H_
#define SERVICES_GATEWAY_GATEWAY_TESTING_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "services/common/stop_signal.h"
#include "services/gateway/fake_backend.h"
#include "services/gateway/gateway.h"

namespace onegrid::gateway {

inline constexpr char kCompletions[] = "/v1/completions";
inline constexpr char kChat[] = "/v1/chat/completions";

// A request for a completion of `prompt`.
inline nlohmann::json Body(const std::string& prompt) {
  return {{"model", "m"}, {"prompt", prompt}, {"max_tokens", 100}};
}

inline nlohmann::json ChatBody(const std::string& user) {
  return {{"model", "m"},
          {"messages", {{{"role", "user"}, {"content", user}}}}};
}

class GatewayTest : public testing::Test {
 protected:
  void SetUp() override {
    common::InstallStopSignal();
    Connect(fake_);
  }
  void TearDown() override {
    grpc_->Shutdown(std::chrono::system_clock::now());
  }

  void Connect(FakeBackend& fake) {
    if (grpc_ != nullptr) grpc_->Shutdown(std::chrono::system_clock::now());
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(&fake);
    builder.RegisterService(&fake.vocabulary());
    grpc_ = builder.BuildAndStart();
    backend_ = std::make_unique<Backend>(absl::StrCat("127.0.0.1:", port));
    options_.model_name = "m";
    options_.random = [this] { return ++random_; };
    Restart();
  }
  void Restart() { gateway_ = std::make_unique<Gateway>(options_, *backend_); }

  // The answer as a client gets it, with a streamed body joined.
  HttpResponse Send(const HttpRequest& request) {
    HttpResponse response = gateway_->Handle(request);
    std::string part;
    while (response.next_part && response.next_part(&part)) {
      response.body += part;
    }
    response.on_done(true);
    return response;
  }
  HttpResponse PostJson(const std::string& path, const nlohmann::json& body) {
    HttpRequest request;
    request.method = "POST";
    request.path = path;
    request.body = body.dump();
    return Send(request);
  }
  HttpResponse Get(const std::string& path) {
    HttpRequest request;
    request.method = "GET";
    request.path = path;
    return Send(request);
  }
  // The text of the only answer.
  std::string Text(const std::string& path, const nlohmann::json& body) {
    const HttpResponse response = PostJson(path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    const nlohmann::json choice =
        nlohmann::json::parse(response.body)["choices"][0];
    return path == kChat ? choice["message"]["content"] : choice["text"];
  }
  nlohmann::json ErrorOf(const HttpResponse& response) {
    return nlohmann::json::parse(response.body)["error"];
  }
  // What is between "data: " and the blank line.
  std::vector<std::string> Events(const std::string& body) {
    std::vector<std::string> events = absl::StrSplit(body, "\n\n");
    EXPECT_EQ(events.back(), "");
    events.pop_back();
    for (std::string& event : events) {
      EXPECT_THAT(event, testing::StartsWith("data: "));
      event.erase(0, 6);
    }
    return events;
  }

  FakeBackend fake_;
  std::unique_ptr<grpc::Server> grpc_;
  GatewayOptions options_;
  std::atomic<uint64_t> random_ = 0;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Gateway> gateway_;
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_GATEWAY_TESTING_H_
