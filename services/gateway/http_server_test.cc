#include "services/gateway/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/stop_signal.h"
#include "services/gateway/http_client_testing.h"

namespace onegrid::gateway {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kGet[] = "GET /path HTTP/1.1\r\nHost: x\r\n\r\n";

// Waits up to five seconds for something that another thread does.
bool Eventually(const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + absl::Seconds(5);
  while (!condition() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  return condition();
}

class HttpServerTest : public testing::Test {
 protected:
  void SetUp() override { common::InstallStopSignal(); }

  void Serve(HttpHandler handler) {
    server_ = std::make_unique<HttpServer>(options_, std::move(handler));
    ASSERT_TRUE(server_->Start().ok());
  }
  const std::string& address() { return server_->address(); }

  HttpServerOptions options_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, RequestsArriveWholeAndAnswersGoOut) {
  Serve([](const HttpRequest& request) {
    HttpResponse response;
    response.status = 201;
    response.headers = {{"X-A", "b"}};
    response.body = absl::StrCat(request.method, " ", request.path, " ",
                                 request.authorization, " ", request.body);
    return response;
  });
  const std::string answer =
      Ask(address(),
          "POST /a%20b?q=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
          "Content-Length: 3\r\n\r\nxyz");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 201"));
  EXPECT_THAT(answer, HasSubstr("X-A: b\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\nPOST /a b Bearer k xyz"));
}

TEST_F(HttpServerTest, ConnectionsAreKept) {
  Serve([](const HttpRequest&) {
    HttpResponse response;
    response.body = "ok.";
    return response;
  });
  RawClient client(address());
  for (int i = 0; i < 3; ++i) {
    client.Send(kGet);
    EXPECT_THAT(client.ReadUntil("ok."), EndsWith("ok.")) << i;
  }
}

TEST_F(HttpServerTest, BodiesOverTheLimitAreLeftOut) {
  options_.body_bytes_max = 1000;
  Serve([](const HttpRequest& request) {
    HttpResponse response;
    response.status = request.body_too_large ? 413 : 200;
    response.body = absl::StrCat(request.body.size());
    return response;
  });
  EXPECT_THAT(Ask(address(), Post("/", std::string(1000, 'x'))),
              EndsWith("\r\n\r\n1000"));
  const std::string answer =
      Ask(address(), Post("/", std::string(1 << 20, 'x')));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\n0"));
  // Without a Content-Length, too.
  EXPECT_THAT(
      Ask(address(), absl::StrCat("POST / HTTP/1.1\r\nHost: x\r\n"
                                  "Transfer-Encoding: chunked\r\n\r\n7d0\r\n",
                                  std::string(2000, 'x'), "\r\n0\r\n\r\n")),
      StartsWith("HTTP/1.1 413"));
}

TEST_F(HttpServerTest, WhatIsNotHttpIsRefused) {
  Serve([](const HttpRequest&) { return HttpResponse(); });
  EXPECT_THAT(Ask(address(), std::string("\x16\x03\x01 nonsense\r\n\r\n")),
              testing::Not(HasSubstr("200 OK")));
  EXPECT_THAT(Ask(address(),
                  "POST / HTTP/1.1\r\nHost: x\r\n"
                  "Content-Length: -5\r\n\r\n"),
              StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(
      Ask(address(), absl::StrCat("GET / HTTP/1.1\r\nHost: x\r\nA: ",
                                  std::string(100'000, 'a'), "\r\n\r\n")),
      StartsWith("HTTP/1.1 431"));
}

TEST_F(HttpServerTest, PartsAreSentAtOnce) {
  absl::Notification first_seen;
  int parts = 0;
  Serve([&](const HttpRequest&) {
    HttpResponse response;
    response.next_part = [&](std::string* part) {
      if (++parts == 1) *part = "one;";
      if (parts == 2) {
        first_seen.WaitForNotificationWithTimeout(absl::Seconds(5));
        *part = "two;";
      }
      return parts <= 2;
    };
    return response;
  });
  RawClient client(address());
  client.Send(kGet);
  EXPECT_THAT(client.ReadUntil("one;"), EndsWith("one;"));
  first_seen.Notify();
  EXPECT_THAT(client.ReadUntil("two;"), EndsWith("two;"));
  EXPECT_THAT(client.ReadUntil("0\r\n\r\n"), EndsWith("0\r\n\r\n"));
}

TEST_F(HttpServerTest, PartsLongerThanABufferArriveWhole) {
  const std::string part(100'000, '~');
  Serve([&](const HttpRequest&) {
    HttpResponse response;
    response.next_part = [&, n = 0](std::string* out) mutable {
      *out = part;
      return ++n <= 2;
    };
    return response;
  });
  const std::string answer = Ask(address(), kGet);
  EXPECT_EQ(std::count(answer.begin(), answer.end(), '~'), 200'000);
}

TEST_F(HttpServerTest, HandlersSeeThatTheirClientHasGone) {
  std::atomic<bool> entered = false, gone = false, sent = true;
  std::atomic<int> done = 0;
  Serve([&](const HttpRequest& request) {
    EXPECT_FALSE(request.client_gone());
    entered = true;
    gone = Eventually(request.client_gone);
    HttpResponse response;
    response.body = std::string(10 << 20, 'x');
    response.on_done = [&](bool s) {
      sent = s;
      ++done;
    };
    return response;
  });
  {
    RawClient client(address());
    client.Send(kGet);
    ASSERT_TRUE(Eventually([&] { return entered.load(); }));
  }
  EXPECT_TRUE(Eventually([&] { return done == 1; }));
  EXPECT_TRUE(gone);
  EXPECT_FALSE(sent);
}

TEST_F(HttpServerTest, StopLetsAnswersInProgressEnd) {
  absl::Notification entered, leave;
  Serve([&](const HttpRequest& request) {
    entered.Notify();
    leave.WaitForNotification();
    EXPECT_FALSE(request.stopping());
    HttpResponse response;
    response.body = "done.";
    return response;
  });
  const std::string address = server_->address();
  RawClient client(address);
  client.Send(kGet);
  entered.WaitForNotification();
  std::thread stop([&] { server_->Stop(); });
  EXPECT_TRUE(Eventually([&] { return !RawClient(address).connected(); }));
  leave.Notify();
  const std::string answer = client.ReadAll();
  stop.join();
  EXPECT_THAT(answer, EndsWith("done."));
  EXPECT_THAT(answer, HasSubstr("Connection: close"));
}

TEST_F(HttpServerTest, StopTellsWhatIsStillRunningAfterTheDrain) {
  options_.drain_timeout = absl::Milliseconds(20);
  std::atomic<bool> stopping = false;
  absl::Notification entered;
  Serve([&](const HttpRequest& request) {
    entered.Notify();
    stopping = Eventually(request.stopping);
    return HttpResponse();
  });
  RawClient client(address());
  client.Send(kGet);
  entered.WaitForNotification();
  server_->Stop();
  EXPECT_TRUE(stopping);
  EXPECT_THAT(client.ReadAll(), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpServerTest, IdleConnectionsDoNotHoldTheStop) {
  Serve([](const HttpRequest&) { return HttpResponse(); });
  RawClient idle(address());
  idle.Send("GET / HT");
  const absl::Time start = absl::Now();
  server_->Stop();
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
}

TEST_F(HttpServerTest, ThePortFileIsThereWhileServing) {
  options_.port_file = testing::TempDir() + "/gateway_port";
  Serve([](const HttpRequest&) { return HttpResponse(); });
  EXPECT_EQ(*common::ReadFile(options_.port_file), address());
  server_->Stop();
  EXPECT_FALSE(common::ReadFile(options_.port_file).ok());
}

TEST_F(HttpServerTest, WhatCannotBeListenedOnIsAnError) {
  Serve([](const HttpRequest&) { return HttpResponse(); });
  HttpServerOptions options;
  ASSERT_TRUE(absl::SimpleAtoi(address().substr(address().rfind(':') + 1),
                               &options.port));
  HttpServer taken(options, [](const HttpRequest&) { return HttpResponse(); });
  EXPECT_EQ(common::ErrorReason(taken.Start()), "PORT_IN_USE");
  for (const auto& [host, port] :
       {std::pair("127.0.0.1", 65536), {"127.0.0.1", -1}, {"no host", 0}}) {
    options.host = host;
    options.port = port;
    HttpServer wrong(options,
                     [](const HttpRequest&) { return HttpResponse(); });
    EXPECT_EQ(common::ErrorReason(wrong.Start()), "INVALID_FLAG") << host;
  }
}

}  // namespace
}  // namespace onegrid::gateway
