// Goal: streams of upstreams are passed on as they come, and no longer than
// somebody reads them. Method: the gateway over HTTP, byte for byte.
#include <gmock/gmock.h>

#include <functional>
#include <memory>
#include <string>

#include "services/gateway/http_client_testing.h"
#include "services/gateway/http_server.h"
#include "services/gateway/routing_testing.h"

namespace onegrid::gateway {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kSend[] = "  - {name: out, send: big}\n";

bool Eventually(const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + absl::Seconds(5);
  while (!condition() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  return condition();
}

class RoutingStreamTest : public RoutingTest {
 protected:
  void Serve() {
    Route(kSend, "", "    response_bytes_max: 500000000\n");
    http_ = std::make_unique<HttpServer>(
        HttpServerOptions(),
        [this](const HttpRequest& r) { return gateway_->Handle(r); });
    ASSERT_TRUE(http_->Start().ok());
  }
  void TearDown() override {
    http_.reset();
    RoutingTest::TearDown();
  }
  std::string Stream() {
    nlohmann::json body = Body("a");
    body["stream"] = true;
    return Post("/v1/completions", body.dump());
  }

  std::unique_ptr<HttpServer> http_;
};

TEST_F(RoutingStreamTest, AStreamPassesUnchanged) {
  Serve();
  RawClient client(http_->address());
  client.Send(Stream());
  const std::string answer = client.ReadUntil("[DONE]\n\n");
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/event-stream"));
  EXPECT_THAT(answer, HasSubstr("x-onegrid-route: big; rule=out; reason=rule"));
  EXPECT_THAT(answer, HasSubstr("\"up\"}}]}\n\n"));
  EXPECT_THAT(answer, HasSubstr("\"stream\"}}]}\n\n"));
  EXPECT_THAT(answer, Not(HasSubstr("Cookie")));
  EXPECT_TRUE(Eventually([&] {
    return router_->MetricsText().find(
               "onegrid_upstream_completion_tokens_total{upstream=\"big\"} "
               "3") != std::string::npos;
  }));
}

TEST_F(RoutingStreamTest, EachEventIsPassedOnAsItComes) {
  upstream_.set_mode(Mode::kSteps);
  upstream_.Release();
  Serve();
  RawClient client(http_->address());
  client.Send(Stream());
  for (const char* step : {"step0", "step1", "step2"}) {
    // The next one is sent only now that this one has arrived.
    EXPECT_THAT(client.ReadUntil(step), EndsWith(step));
    upstream_.Release();
  }
}

TEST_F(RoutingStreamTest, AClientThatGoesAwayEndsTheUpstreamsRequest) {
  upstream_.set_mode(Mode::kSteps);
  upstream_.Release();
  Serve();
  {
    RawClient client(http_->address());
    client.Send(Stream());
    client.ReadUntil("step0");
    EXPECT_EQ(upstream_.abandoned(), 0);
  }
  const absl::Time gone = absl::Now();
  EXPECT_TRUE(Eventually([&] { return upstream_.abandoned() == 1; }));
  // Looked for every 50 ms; far from the time limit of the request.
  EXPECT_LT(absl::Now() - gone, absl::Seconds(2));
}

TEST_F(RoutingStreamTest, AClientThatGoesAwayBeforeTheAnswerEndsItToo) {
  upstream_.set_mode(Mode::kHang);
  Serve();
  {
    RawClient client(http_->address());
    client.Send(Stream());
    EXPECT_TRUE(Eventually([&] { return asked() == 1; }));
  }
  EXPECT_TRUE(Eventually([&] { return upstream_.abandoned() == 1; }));
  // Nobody is there for whom the local model could stand in.
  EXPECT_TRUE(fake_.requests().empty());
}

TEST_F(RoutingStreamTest, WhatIsNotReadStaysWithTheUpstream) {
  upstream_.set_mode(Mode::kFlood);
  Serve();
  RawClient client(http_->address());
  client.Send(Stream());
  client.ReadUntil("data: ");
  int64_t sent = 0;
  EXPECT_TRUE(Eventually([&] {
    const int64_t before = std::exchange(sent, upstream_.bytes_sent());
    absl::SleepFor(absl::Milliseconds(100));
    return before > 0 && before == upstream_.bytes_sent();
  }));
  // Sockets' own buffers on both sides, and 64 KB between them.
  EXPECT_LT(sent, 20 << 20);
}

TEST_F(RoutingStreamTest, AStreamThatBreaksOffDoesNotLookDone) {
  upstream_.set_mode(Mode::kTruncated);
  Serve();
  RawClient client(http_->address());
  client.Send(Stream());
  const std::string answer = client.ReadUntil("upstream_broken\"");
  EXPECT_THAT(answer, HasSubstr("\"up\"}}]}\n\n"));
  // The beginning of an event that never ended is left out.
  EXPECT_THAT(answer, Not(HasSubstr("{\"ind\r")));
  EXPECT_THAT(answer,
              HasSubstr("data: {\"error\":{\"code\":\"upstream_broken"));
  EXPECT_THAT(answer, Not(HasSubstr("[DONE]")));
  EXPECT_TRUE(fake_.requests().empty());
}

TEST_F(RoutingStreamTest, HeadersThatComeTwiceAreAllRead) {
  Serve();
  const std::string body = Body("a").dump();
  const std::string answer =
      Ask(http_->address(),
          absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                       "X-OneGrid-Privacy: public\r\n"
                       "x-onegrid-privacy: private\r\nContent-Length: ",
                       body.size(), "\r\n\r\n", body));
  EXPECT_THAT(answer, HasSubstr("x-onegrid-route: local; rule=private"));
  EXPECT_EQ(asked(), 0);
}

}  // namespace
}  // namespace onegrid::gateway
