// An HTTP/1.1 server on GNU libmicrohttpd: one thread a connection, answers
// whole or in parts, drain, and word of clients that have gone away.
#ifndef SERVICES_GATEWAY_HTTP_SERVER_H_
#define SERVICES_GATEWAY_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace onegrid::gateway {

struct HttpRequest {
  std::string method;
  std::string path;  // decoded, without the query
  std::string authorization;
  std::string content_encoding;
  // Values of x-onegrid-privacy and x-onegrid-task; several are joined by ",".
  std::string privacy;
  std::string task;
  std::string body;
  // The body was longer than allowed and is left out.
  bool body_too_large = false;
  // Whether the client has closed its side of the connection. Cheap; may be
  // called until on_done of the response.
  std::function<bool()> client_gone = [] { return false; };
  // Whether the drain is over: what is still running has to end now.
  std::function<bool()> stopping = [] { return false; };
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  // If set, the body is not `body` but what this yields until it returns
  // false. Each part is sent at once, and blocking here is fine.
  std::function<bool(std::string* part)> next_part;
  // Called once: the response was sent, or (false) could not be.
  std::function<void(bool sent)> on_done = [](bool) {};
};

// Called from many threads. Must not throw.
using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;

struct HttpServerOptions {
  // Loopback unless told otherwise.
  std::string host = "127.0.0.1";
  // 0 picks a free port.
  int port = 0;
  // If not empty, "host:port" is written there atomically once serving, and
  // the file is removed at the end.
  std::string port_file;
  // Connections served at once, each by a thread; more wait to be accepted.
  int connections_max = 128;
  size_t body_bytes_max = 4 << 20;
  // A connection on which nothing comes for this long is closed, except that
  // an answer in progress may pause for `answer_timeout`.
  absl::Duration idle_timeout = absl::Seconds(30);
  absl::Duration answer_timeout = absl::Minutes(11);
  // How long answers in progress may go on after Stop was called.
  absl::Duration drain_timeout = absl::Seconds(20);
};

// Start and Stop from one thread.
class HttpServer {
 public:
  HttpServer(HttpServerOptions options, HttpHandler handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Binds, serves, writes the port file. InvalidArgument (INVALID_FLAG): no
  // such port or host. Unavailable (PORT_IN_USE): the address cannot be bound.
  // Errors of WriteFileAtomic.
  absl::Status Start();

  // "host:port" that is bound; an IPv6 host is in brackets.
  const std::string& address() const { return address_; }

  // Refuses new connections, lets answers in progress end within the drain
  // timeout, then tells the rest through `stopping`, and returns when all
  // threads are gone. Idempotent.
  void Stop();

 private:
  struct State;

  HttpServerOptions options_;
  std::string address_;
  std::unique_ptr<State> state_;
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_HTTP_SERVER_H_
