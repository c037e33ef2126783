// A gateway with rules between a fake backend and recording upstreams.
#ifndef SERVICES_GATEWAY_ROUTING_TESTING_H_
#define SERVICES_GATEWAY_ROUTING_TESTING_H_

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "services/common/files.h"
#include "services/common/stop_signal.h"
#include "services/gateway/backend.h"
#include "services/gateway/fake_backend.h"
#include "services/gateway/gateway.h"
#include "services/gateway/recording_upstream.h"
#include "services/gateway/route_config.h"
#include "services/gateway/router.h"

namespace onegrid::gateway {

inline constexpr char kUpstreamKey[] = "sk-of-the-upstream";

class RoutingTest : public testing::Test {
 protected:
  using Mode = RecordingUpstream::Mode;

  void SetUp() override {
    common::InstallStopSignal();
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(&fake_);
    grpc_ = builder.BuildAndStart();
    backend_ = std::make_unique<Backend>(absl::StrCat("127.0.0.1:", port));
    ASSERT_TRUE(
        common::WriteFileAtomic(testing::TempDir() + "/key", kUpstreamKey)
            .ok());
  }
  void TearDown() override { StopBackend(); }
  void StopBackend() {
    grpc_->Shutdown(std::chrono::system_clock::now());
    grpc_->Wait();
  }

  // Starts the gateway: upstream "big" with more lines of its own, then the
  // rules, and more lines of the file.
  void Route(const std::string& rules, const std::string& more = "",
             const std::string& upstream = "") {
    const auto config = ParseRouteConfig(
        absl::StrCat("upstreams:\n  - name: big\n    base_url: http://",
                     upstream_.address(),
                     "/v1\n    model: big-model\n    api_key_file: key\n",
                     upstream.find("request_timeout_ms") == std::string::npos
                         ? "    request_timeout_ms: 60000\n"
                         : "",
                     upstream, "rules:\n", rules, more,
                     more.find("default_privacy") == std::string::npos
                         ? "default_privacy: public\n"
                         : ""),
        testing::TempDir());
    ASSERT_TRUE(config.ok()) << config.status();
    RouteMeasures measures;
    measures.count_tokens = [](const std::string& text) {
      return static_cast<int64_t>(text.size());
    };
    measures.queued = [] { return 5; };
    router_ = std::make_unique<Router>(*config, "m", measures,
                                       [this] { return now_; });
    Restart(absl::Minutes(10));
  }
  // The same rules, breakers and budgets behind requests of at most this long.
  void Restart(absl::Duration timeout) {
    GatewayOptions options;
    options.model_name = "m";
    options.timeout = timeout;
    options.random = [this] { return ++random_; };
    options.router = router_.get();
    gateway_ = std::make_unique<Gateway>(options, *backend_);
  }

  static HttpRequest Request(const std::string& path,
                             const nlohmann::json& body,
                             const std::string& privacy = "") {
    HttpRequest request;
    request.method = "POST";
    request.path = path;
    request.authorization = "Bearer sk-of-the-client";
    request.privacy = privacy;
    request.body = body.dump();
    return request;
  }
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
  HttpResponse Complete(const nlohmann::json& body,
                        const std::string& privacy = "") {
    return Send(Request("/v1/completions", body, privacy));
  }
  std::string Metrics() {
    HttpRequest request;
    request.method = "GET";
    request.path = "/metrics";
    return Send(request).body;
  }
  static nlohmann::json Body(const std::string& prompt) {
    return {{"model", "m"}, {"prompt", prompt}, {"max_tokens", 10}};
  }
  static std::string RouteOf(const HttpResponse& response) {
    for (const auto& [name, value] : response.headers) {
      if (name == "x-onegrid-route") return value;
    }
    return "";
  }
  size_t asked() const { return upstream_.requests().size(); }

  FakeBackend fake_;
  RecordingUpstream upstream_;
  std::unique_ptr<grpc::Server> grpc_;
  std::unique_ptr<Backend> backend_;
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);  // of breaker and budget
  uint64_t random_ = 0;
  std::unique_ptr<Router> router_;
  std::unique_ptr<Gateway> gateway_;
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_ROUTING_TESTING_H_
