// Goal: who answers, and that nothing private leaves. Method: the gateway with
// rules between a fake backend and an upstream that notes what it is sent.
#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "services/gateway/routing_testing.h"

namespace onegrid::gateway {
namespace {

using nlohmann::json;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kSend[] = "  - {name: out, send: big}\n";
constexpr char kEscalate[] =
    "  - {name: unsure, escalate: {to: big, mean_logprob_below: -0.4}}\n";
constexpr char kSure[] =
    "  - {name: sure, escalate: {to: big, min_logprob_below: -0.6}}\n";

TEST_F(RoutingTest, AnUpstreamGetsTheBodyWithItsOwnModelAndKey) {
  Route("  - {name: code, when: {task: code}, send: big}\n");
  HttpRequest request = Request("/v1/chat/completions", json::object());
  request.body =
      "{ \"model\":\"m\", \"messages\":[{\"role\":\"user\","
      "\"content\":\"hi\"}], \"logit_bias\":{\"1\":1.50} }";
  request.task = "code";
  const HttpResponse response = Send(request);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(json::parse(response.body)["object"], "upstream");
  EXPECT_EQ(RouteOf(response), "big; rule=code; reason=rule");
  ASSERT_EQ(asked(), 1);
  const std::string sent = upstream_.requests()[0];
  EXPECT_THAT(sent, StartsWith("POST /v1/chat/completions HTTP/1.1\r\n"));
  EXPECT_THAT(sent, HasSubstr("Authorization: Bearer sk-of-the-upstream\r\n"));
  EXPECT_THAT(sent, Not(HasSubstr("client")));
  EXPECT_THAT(sent,
              EndsWith("\r\n\r\n{ \"model\":\"big-model\", \"messages\":[{"
                       "\"role\":\"user\",\"content\":\"hi\"}], "
                       "\"logit_bias\":{\"1\":1.50} }"));
}

TEST_F(RoutingTest, OnlyTheContentTypeOfAnUpstreamsHeadersComesBack) {
  Route(kSend);
  const HttpResponse response = Complete(Body("a"));
  EXPECT_EQ(response.content_type, "application/json");
  ASSERT_EQ(response.headers.size(), 1);
  EXPECT_EQ(response.headers[0].first, "x-onegrid-route");
}

TEST_F(RoutingTest, WithoutARuleTheLocalModelAnswers) {
  Route("  - {name: code, when: {task: code}, send: big}\n");
  const HttpResponse response = Complete(Body("a"));
  EXPECT_EQ(json::parse(response.body)["choices"][0]["text"], "<bos>a");
  EXPECT_EQ(RouteOf(response), "local; rule=default; reason=default");
  EXPECT_EQ(asked(), 0);
}

// Every rule that could let a request out, against everything that can fail.
TEST_F(RoutingTest, PrivateRequestsNeverLeave) {
  const std::string rules[] = {
      kSend,
      kEscalate,
      "  - {name: big-name, when: {model: m}, send: big}\n",
      "  - {name: long, when: {prompt_characters_min: 1}, send: big}\n",
      "  - {name: tokens, when: {prompt_tokens_min: 1}, send: big}\n",
      "  - {name: busy, when: {local_queued_min: 1}, send: big}\n",
      "  - {name: code, when: {task: code}, send: big}\n",
      "  []\n"};
  const struct {
    const char* prompt;
    int status;
  } cases[] = {{"fine", 200},
               {"queue full", 429},
               {"draining", 503},
               {"too long", 400},
               {"crash", 500}};
  for (const bool backend_up : {true, false}) {
    if (!backend_up) StopBackend();
    for (const std::string& rule : rules) {
      Route(rule, "on_local_failure: big\n");
      for (const auto& [prompt, status] : cases) {
        for (const bool stream : {false, true}) {
          for (const char* by : {"header", "metadata", "twice"}) {
            json body = Body(prompt);
            body["stream"] = stream;
            body["metadata"] = {{"task", "code"}, {"privacy", "public"}};
            if (by == std::string("metadata")) {
              body["metadata"]["privacy"] = "private";
            }
            HttpRequest request = Request("/v1/completions", body, "private");
            if (by == std::string("metadata")) request.privacy = "public";
            if (by == std::string("twice")) request.privacy = "public,private";
            const HttpResponse response = Send(request);
            EXPECT_EQ(response.status, backend_up ? status : 503)
                << rule << prompt;
            EXPECT_EQ(RouteOf(response), "local; rule=private; reason=private");
            if (response.status > 400) {
              EXPECT_THAT(response.body,
                          HasSubstr("private and was sent nowhere else"));
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(asked(), 0);
}

TEST_F(RoutingTest, ByDefaultOnlyWhatIsMarkedPublicLeaves) {
  Route(kSend, "default_privacy: private\n");
  EXPECT_EQ(RouteOf(Complete(Body("a"))),
            "local; rule=private; reason=private");
  EXPECT_EQ(RouteOf(Complete(Body("a"), "internal")),
            "local; rule=private; reason=private");
  EXPECT_EQ(asked(), 0);
  EXPECT_EQ(RouteOf(Complete(Body("a"), "public")),
            "big; rule=out; reason=rule");
  EXPECT_EQ(asked(), 1);
}

TEST_F(RoutingTest, TheLocalModelStandsInForAnUpstreamThatFails) {
  const struct {
    Mode mode;
    int status;
    const char* reason;
  } cases[] = {
      {Mode::kStatus, 500, "upstream_status"},
      {Mode::kStatus, 503, "upstream_status"},
      {Mode::kStatus, 401, "upstream_status"},
      {Mode::kStatus, 429, "upstream_rate_limit"},
      {Mode::kHang, 0, "upstream_timeout"},
      {Mode::kReset, 0, "upstream_broken"},
      {Mode::kHtml, 0, "upstream_broken"},
  };
  for (const auto& failure : cases) {
    for (const bool stream : {false, true}) {
      Route(kSend, "",
            failure.mode == Mode::kHang ? "    request_timeout_ms: 300\n" : "");
      upstream_.set_mode(failure.mode);
      upstream_.set_status(failure.status);
      json body = Body("a");
      body["stream"] = stream;
      const HttpResponse response = Complete(body);
      EXPECT_EQ(response.status, 200);
      EXPECT_THAT(response.body, HasSubstr("\"model\":\"m\""));
      EXPECT_EQ(RouteOf(response),
                absl::StrCat("local; rule=out; reason=", failure.reason));
    }
  }
}

TEST_F(RoutingTest, AnAnswerThatBreaksOffIsReplacedIfNothingWasSent) {
  Route(kSend, "", "    response_bytes_max: 100000\n");
  upstream_.set_mode(Mode::kTruncated);
  EXPECT_EQ(RouteOf(Complete(Body("a"))),
            "local; rule=out; reason=upstream_broken");
  upstream_.set_mode(Mode::kHuge);
  EXPECT_EQ(RouteOf(Complete(Body("a"))),
            "local; rule=out; reason=upstream_broken");
  EXPECT_LT(upstream_.bytes_sent(), 10 << 20);
}

TEST_F(RoutingTest, NobodyThereIsUnreachable) {
  Route("  - {name: out, send: gone}\n", "",
        "  - {name: gone, base_url: \"http://127.0.0.1:1\", model: x}\n");
  EXPECT_EQ(RouteOf(Complete(Body("a"))),
            "local; rule=out; reason=upstream_unreachable");
}

TEST_F(RoutingTest, RedirectsAreNotFollowed) {
  RecordingUpstream elsewhere;
  upstream_.set_location(
      absl::StrCat("http://", elsewhere.address(), "/v1/completions"));
  upstream_.set_mode(Mode::kRedirect);
  Route(kSend);
  EXPECT_EQ(RouteOf(Complete(Body("a"))),
            "local; rule=out; reason=upstream_status");
  EXPECT_TRUE(elsewhere.requests().empty());
}

TEST_F(RoutingTest, WhatAnUpstreamSaysToTheClientIsPassedOn) {
  Route(kSend);
  upstream_.set_mode(Mode::kStatus);
  upstream_.set_status(400);
  const HttpResponse response = Complete(Body("a"));
  EXPECT_EQ(response.status, 400);
  EXPECT_THAT(response.body, HasSubstr("upstream says no"));
  EXPECT_EQ(RouteOf(response), "big; rule=out; reason=rule");
}

TEST_F(RoutingTest, IfNobodyAnswersTheErrorNamesBoth) {
  Route(kSend);
  upstream_.set_mode(Mode::kStatus);
  for (const auto& [prompt, status] :
       {std::pair("queue full", 429), {"too long", 503}}) {
    const HttpResponse response = Complete(Body(prompt));
    EXPECT_EQ(response.status, status);
    EXPECT_THAT(response.body, HasSubstr("upstream big gave no answer "
                                         "(upstream_status), and neither"));
  }
}

TEST_F(RoutingTest, ABreakerSparesAnUpstreamThatFails) {
  Route(kSend, "", "    breaker: {failures: 2, open_ms: 10000}\n");
  upstream_.set_mode(Mode::kStatus);
  for (int i = 0; i < 2; ++i) Complete(Body("a"));
  EXPECT_EQ(RouteOf(Complete(Body("a"))),
            "local; rule=out; reason=breaker_open");
  EXPECT_EQ(asked(), 2);
  EXPECT_THAT(router_->MetricsText(),
              HasSubstr("onegrid_upstream_breaker_state{upstream=\"big\"} 2"));
  now_ += absl::Seconds(10);
  upstream_.set_mode(Mode::kAnswer);
  EXPECT_EQ(RouteOf(Complete(Body("a"))), "big; rule=out; reason=rule");
  EXPECT_THAT(router_->MetricsText(),
              HasSubstr("onegrid_upstream_breaker_state{upstream=\"big\"} 0"));
}

TEST_F(RoutingTest, ABudgetThatIsSpentKeepsRequestsHere) {
  Route(kSend, "",
        "    budget: {tokens_per_day: 25, cost_per_day: 1,"
        " prompt_cost_per_million: 10000, completion_cost_per_million: 0}\n");
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(RouteOf(Complete(Body("a"))), "big; rule=out; reason=rule");
  }
  EXPECT_EQ(RouteOf(Complete(Body("a"))),
            "local; rule=out; reason=budget_tokens");
  EXPECT_EQ(asked(), 2);
  EXPECT_THAT(router_->MetricsText(),
              HasSubstr("onegrid_upstream_tokens_today{upstream=\"big\"} 20"));
  EXPECT_THAT(router_->MetricsText(),
              HasSubstr("onegrid_upstream_cost_today{upstream=\"big\"} 0.14"));
}

TEST_F(RoutingTest, AnAnswerThatIsNotSureEscalates) {
  Route(std::string(kEscalate));
  const HttpResponse response = Complete(Body("a"));
  EXPECT_EQ(RouteOf(response), "big; rule=unsure; reason=not_confident");
  EXPECT_EQ(json::parse(response.body)["object"], "upstream");
  upstream_.set_mode(Mode::kStatus);
  const HttpResponse local = Complete(Body("a"));
  EXPECT_EQ(RouteOf(local), "local; rule=unsure; reason=upstream_status");
  const json choice = json::parse(local.body)["choices"][0];
  EXPECT_EQ(choice["text"], "<bos>a");
  // They were asked for by the gateway, not by the client.
  EXPECT_TRUE(choice["logprobs"].is_null());
}

TEST_F(RoutingTest, ASureAnswerStays) {
  Route(kSure);
  json body = Body("ab");
  const std::string whole = Complete(body).body;
  EXPECT_THAT(whole, HasSubstr("<bos>ab"));
  body["stream"] = true;
  const HttpResponse response = Complete(body);
  EXPECT_EQ(RouteOf(response), "local; rule=sure; reason=confident");
  EXPECT_THAT(response.body, EndsWith("data: [DONE]\n\n"));
  EXPECT_EQ(asked(), 0);
}

TEST_F(RoutingTest, WhenTheLocalModelFailsAnUpstreamMayStandIn) {
  Route("  []\n", "on_local_failure: big\n");
  EXPECT_EQ(RouteOf(Complete(Body("queue full"))),
            "big; rule=default; reason=local_failed");
  // The request's own mistakes are no failure.
  EXPECT_EQ(RouteOf(Complete(Body("too long"))),
            "local; rule=default; reason=default");
  StopBackend();
  EXPECT_EQ(RouteOf(Complete(Body("a"))),
            "big; rule=default; reason=local_failed");
  EXPECT_EQ(asked(), 2);
  json ids = Body("");
  ids["prompt"] = {1, 2};
  EXPECT_EQ(Complete(ids).status, 503);
  EXPECT_EQ(asked(), 2);
}

// The client has an answer, and the local model gave none.
TEST_F(RoutingTest, RescuedRequestsCountAsAnswered) {
  Route("  []\n", "on_local_failure: big\n");
  EXPECT_EQ(Complete(Body("queue full")).status, 200);
  const std::string metrics = Metrics();
  EXPECT_THAT(metrics,
              HasSubstr("{endpoint=\"/v1/completions\",code=\"200\"} 1"));
  EXPECT_THAT(
      metrics,
      HasSubstr("e2e_request_latency_seconds_count{model_name=\"m\"} 0"));
}

// What the local model took too long for leaves an upstream no time; that says
// nothing of the upstream.
TEST_F(RoutingTest, ALateFailureIsNotTheUpstreams) {
  Route("  []\n", "on_local_failure: big\n",
        "    breaker: {failures: 1, open_ms: 100000}\n");
  Restart(absl::Milliseconds(50));
  const HttpResponse late = Complete(Body("silent"));
  EXPECT_EQ(late.status, 504);
  EXPECT_EQ(RouteOf(late), "local; rule=default; reason=no_time");
  EXPECT_EQ(asked(), 0);
  Restart(absl::Minutes(10));
  EXPECT_EQ(RouteOf(Complete(Body("queue full"))),
            "big; rule=default; reason=local_failed");
}

TEST_F(RoutingTest, ModelsAreThoseOfTheRules) {
  Route(
      "  - {name: alias, when: {model: small}, send: local}\n"
      "  - {name: out, when: {model: large}, send: big}\n");
  json body = Body("a");
  body["model"] = "small";
  const HttpResponse local = Complete(body);
  EXPECT_EQ(RouteOf(local), "local; rule=alias; reason=rule");
  EXPECT_EQ(json::parse(local.body)["model"], "m");
  body["model"] = "large";
  EXPECT_EQ(RouteOf(Complete(body)), "big; rule=out; reason=rule");
  body["model"] = "other";
  EXPECT_EQ(Complete(body).status, 404);
  EXPECT_EQ(asked(), 1);
}

TEST_F(RoutingTest, DecisionsAreCountedAndLoggedWithoutKeysAndPrompts) {
  Route(kSend);
  testing::internal::CaptureStderr();
  Complete(Body("prompt-words"));
  upstream_.set_mode(Mode::kStatus);
  Complete(Body("prompt-words"));
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("route=\"big; rule=out; reason=rule\""));
  EXPECT_THAT(log, HasSubstr("prompt_tokens=7"));
  EXPECT_THAT(log, HasSubstr("upstream=big reason=upstream_status"));
  EXPECT_THAT(log, Not(HasSubstr("sk-of")));
  EXPECT_THAT(log, Not(HasSubstr("prompt-words")));
  EXPECT_THAT(router_->MetricsText(),
              HasSubstr("onegrid_route_total{target=\"big\",rule=\"out\","
                        "reason=\"rule\"} 1\n"));
}

}  // namespace
}  // namespace onegrid::gateway
