// Goal: what clients see where statuses, time and connections are what matters.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "services/gateway/fake_backend.h"
#include "services/gateway/gateway_testing.h"
#include "services/gateway/http_client_testing.h"
#include "services/gateway/http_server.h"

namespace onegrid::gateway {
namespace {

using nlohmann::json;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

bool Eventually(const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + absl::Seconds(5);
  while (!condition() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  return condition();
}

class GatewayHttpTest : public GatewayTest {
 protected:
  void TearDown() override {
    http_.reset();
    GatewayTest::TearDown();
  }
  void ServeHttp(HttpServerOptions options = {}) {
    http_ = std::make_unique<HttpServer>(
        options, [this](const HttpRequest& r) { return gateway_->Handle(r); });
    ASSERT_TRUE(http_->Start().ok());
  }

  std::unique_ptr<HttpServer> http_;
};

TEST_F(GatewayHttpTest, RefusalsOfTheBackendAreHttpStatuses) {
  const struct {
    const char* prompt;
    int status;
    const char* code;
  } cases[] = {{"queue full", 429, "queue_full"},
               {"draining", 503, "server_draining"},
               {"too long", 400, "context_length_exceeded"},
               {"crash", 500, "data_loss"}};
  for (const auto& c : cases) {
    for (const bool stream : {false, true}) {
      json body = Body(c.prompt);
      body["stream"] = stream;
      const HttpResponse response = PostJson(kCompletions, body);
      EXPECT_EQ(response.status, c.status) << c.prompt;
      EXPECT_EQ(ErrorOf(response)["code"], c.code);
      EXPECT_THAT(response.body, testing::Not(HasSubstr("secret")));
      EXPECT_EQ(response.headers.empty(), c.status != 429);
      for (const auto& [name, value] : response.headers) {
        EXPECT_EQ(name + value, "Retry-After7");
      }
    }
  }
}

TEST_F(GatewayHttpTest, AStreamThatBreaksOffDoesNotLookDone) {
  json body = Body("break off");
  EXPECT_EQ(PostJson(kCompletions, body).status, 500);
  body["stream"] = true;
  const HttpResponse response = PostJson(kCompletions, body);
  EXPECT_EQ(response.status, 200);
  const std::vector<std::string> events = Events(response.body);
  ASSERT_EQ(events.size(), 4);
  EXPECT_EQ(json::parse(events[3])["error"]["code"], "internal");
  EXPECT_THAT(Get("/metrics").body,
              HasSubstr("{endpoint=\"/v1/completions\",code=\"500\"} 2"));
}

TEST_F(GatewayHttpTest, RequestsHaveATimeLimit) {
  options_.timeout = absl::Milliseconds(50);
  Restart();
  const HttpResponse response = PostJson(kCompletions, Body("silent"));
  EXPECT_EQ(response.status, 504);
  EXPECT_EQ(ErrorOf(response)["code"], "deadline_exceeded");
}

TEST_F(GatewayHttpTest, HealthIsThatOfTheBackend) {
  EXPECT_EQ(Get("/health").status, 200);
  grpc_->Shutdown(std::chrono::system_clock::now());
  const HttpResponse response = Get("/health");
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(PostJson(kCompletions, Body("a")).status, 503);
  // The address of the backend is no client's business.
  EXPECT_THAT(response.body, testing::Not(HasSubstr("127.0.0.1")));
}

TEST_F(GatewayHttpTest, ModelsAreListedAndFound) {
  EXPECT_EQ(json::parse(Get("/v1/models").body)["data"][0]["id"], "m");
  EXPECT_EQ(json::parse(Get("/v1/models/m").body)["object"], "model");
  EXPECT_EQ(Get("/v1/models/other").status, 404);
  json body = Body("a");
  body["model"] = "other";
  const HttpResponse response = PostJson(kCompletions, body);
  EXPECT_EQ(response.status, 404);
  EXPECT_EQ(ErrorOf(response)["code"], "model_not_found");
  EXPECT_TRUE(fake_.requests().empty());
}

TEST_F(GatewayHttpTest, AdaptersAreModels) {
  const json models = json::parse(Get("/v1/models").body)["data"];
  ASSERT_EQ(models.size(), 2u);
  EXPECT_EQ(models[1]["id"], "tuned");
  EXPECT_EQ(models[1]["parent"], "m");
  EXPECT_EQ(json::parse(Get("/v1/models/tuned").body)["id"], "tuned");
  json body = Body("a");
  const json bare = json::parse(PostJson(kCompletions, body).body);
  body["model"] = "tuned";
  const json tuned = json::parse(PostJson(kCompletions, body).body);
  EXPECT_EQ(tuned["model"], "tuned");
  EXPECT_NE(tuned["system_fingerprint"], bare["system_fingerprint"]);
  ASSERT_EQ(fake_.requests().size(), 2u);
  EXPECT_EQ(fake_.requests()[0].adapter(), "");
  EXPECT_EQ(fake_.requests()[1].adapter(), "tuned");
  // Without the backend only the model itself is known.
  grpc_->Shutdown(std::chrono::system_clock::now());
  EXPECT_EQ(json::parse(Get("/v1/models").body)["data"].size(), 1u);
  EXPECT_EQ(PostJson(kCompletions, body).status, 503);
}

TEST_F(GatewayHttpTest, WrongPathsMethodsAndBodiesHaveTheirStatuses) {
  EXPECT_EQ(Get("/").status, 404);
  EXPECT_EQ(Get("/v1").status, 404);
  EXPECT_EQ(Get("/v1/modelsx").status, 404);
  EXPECT_EQ(Get(kChat).status, 405);
  EXPECT_EQ(PostJson("/health", {}).status, 405);
  HttpRequest request;
  request.method = "POST";
  request.path = kChat;
  request.body_too_large = true;
  EXPECT_EQ(Send(request).status, 413);
  request.body_too_large = false;
  request.content_encoding = "gzip";
  EXPECT_EQ(Send(request).status, 415);
  request.content_encoding = "";
  EXPECT_EQ(Send(request).status, 400);
  EXPECT_TRUE(ErrorOf(Send(request)).contains("message"));
}

TEST_F(GatewayHttpTest, TheKeyIsAskedForOnV1Only) {
  options_.api_key = "key";
  Restart();
  EXPECT_EQ(Get("/health").status, 200);
  HttpRequest request;
  request.method = "GET";
  request.path = "/v1/models";
  for (const char* wrong : {"", "Bearer", "Bearer ", "Bearer kez",
                            "Bearer keykey", "Basic key", "key"}) {
    request.authorization = wrong;
    const HttpResponse response = Send(request);
    EXPECT_EQ(response.status, 401) << wrong;
    EXPECT_EQ(ErrorOf(response)["code"], "invalid_api_key");
  }
  for (const char* right : {"Bearer key", "bearer key", "Bearer  key "}) {
    request.authorization = right;
    EXPECT_EQ(Send(request).status, 200) << right;
  }
}

TEST_F(GatewayHttpTest, MetricsCountTokensAndRequests) {
  PostJson(kCompletions, Body("ab"));
  Get("/nowhere/1");
  Get("/nowhere/2");
  const std::string text = Get("/metrics").body;
  EXPECT_THAT(text, HasSubstr("{endpoint=\"other\",code=\"404\"} 2\n"));
  EXPECT_THAT(text,
              HasSubstr("onegrid_prompt_tokens_total{model_name=\"m\"} 7\n"));
  for (const char* value : {
           "time_to_first_token_seconds_count{model_name=\"m\"} 1",
           // "<bos>ab" has seven tokens.
           "inter_token_latency_seconds_count{model_name=\"m\"} 6",
           "e2e_request_latency_seconds_count{model_name=\"m\"} 1",
           "request_queue_time_seconds_count{model_name=\"m\"} 1",
           "request_generation_tokens_sum{model_name=\"m\"} 7",
           "gateway_requests_in_progress{model_name=\"m\"} 0",
       }) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("onegrid_", value, "\n")));
  }
}

TEST_F(GatewayHttpTest, MetricsTellTheLoadOfTheBackend) {
  const std::string text = Get("/metrics").body;
  EXPECT_THAT(text, HasSubstr("onegrid_backend_up{model_name=\"m\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("requests_waiting{model_name=\"m\"} 5\n"));
  grpc_->Shutdown(std::chrono::system_clock::now());
  const HttpResponse response = Get("/metrics");
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.body,
              HasSubstr("onegrid_backend_up{model_name=\"m\"} 0\n"));
  EXPECT_THAT(response.body, testing::Not(HasSubstr("requests_waiting")));
}

TEST_F(GatewayHttpTest, MetricsCountEachAnswerOfARequest) {
  json body = Body("ab");
  body["n"] = 2;
  PostJson(kCompletions, body);
  const std::string text = Get("/metrics").body;
  EXPECT_THAT(text,
              HasSubstr("first_token_seconds_count{model_name=\"m\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("generation_tokens_count{model_name=\"m\"} 2\n"));
}

TEST_F(GatewayHttpTest, AClientThatGoesAwayEndsItsGeneration) {
  ServeHttp();
  int gone = 0;
  for (const char* prompt : {"silent", "forever"}) {
    for (const bool stream : {false, true}) {
      json body = Body(prompt);
      body["stream"] = stream;
      {
        RawClient client(http_->address());
        client.Send(Post(kCompletions, body.dump()));
        ASSERT_TRUE(Eventually([&] { return fake_.running() == 1; }));
      }
      ++gone;
      EXPECT_TRUE(Eventually([&] { return fake_.cancelled() == gone; }))
          << prompt << stream;
    }
  }
  EXPECT_TRUE(Eventually([&] {
    return absl::StrContains(Get("/metrics").body,
                             "{endpoint=\"/v1/completions\",code=\"499\"} 4\n");
  }));
}

TEST_F(GatewayHttpTest, AfterTheDrainStreamsEndWithAnError) {
  HttpServerOptions options;
  options.drain_timeout = absl::Milliseconds(50);
  ServeHttp(options);
  json body = Body("forever");
  body["stream"] = true;
  RawClient client(http_->address());
  client.Send(Post(kCompletions, body.dump()));
  EXPECT_THAT(client.ReadUntil("\n\n"), HasSubstr("data: "));
  RawClient whole(http_->address());
  whole.Send(Post(kCompletions, Body("silent").dump()));
  ASSERT_TRUE(Eventually([&] { return fake_.running() == 2; }));
  http_->Stop();
  const std::string rest = client.ReadAll();
  EXPECT_THAT(rest, HasSubstr("\"code\":\"server_draining\""));
  EXPECT_THAT(rest, testing::Not(HasSubstr("[DONE]")));
  EXPECT_THAT(rest, EndsWith("0\r\n\r\n"));
  EXPECT_THAT(whole.ReadAll(), StartsWith("HTTP/1.1 503"));
  EXPECT_TRUE(Eventually([&] { return fake_.cancelled() == 2; }));
}

}  // namespace
}  // namespace onegrid::gateway
