// A POST to another server, on libcurl: time limits, size limits, cancellation
// and back pressure.
#ifndef SERVICES_GATEWAY_HTTP_CALL_H_
#define SERVICES_GATEWAY_HTTP_CALL_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace onegrid::gateway {

// Connections that wait for their next request. Thread-safe; must outlive the
// calls that use it.
class HttpConnections {
 public:
  HttpConnections();
  ~HttpConnections();
  HttpConnections(const HttpConnections&) = delete;
  HttpConnections& operator=(const HttpConnections&) = delete;

 private:
  friend class HttpCall;
  struct State;

  const std::unique_ptr<State> state_;
};

struct HttpCallOptions {
  std::string url;
  // "Name: value" each; no others are sent but Host, Accept and Content-Length.
  std::vector<std::string> headers;
  std::string body;
  // Authorities of TLS; empty: the system's. Certificates are always verified.
  std::string ca_file;
  absl::Duration connect_timeout;
  absl::Time deadline;
  // Of the answer's body.
  size_t bytes_max = 0;
};

// One call. Neither redirects nor proxies nor cookies: the server in the URL
// gets the request, and nobody else. Thread-compatible; all work is done in the
// methods' callers, so what is not read stays at the server. Destroying it
// closes the connection unless the answer was read to its end.
//
// Errors of all methods: Unavailable: no connection, or TLS refused;
// DeadlineExceeded; ResourceExhausted: the answer is larger than bytes_max;
// Aborted: the answer broke off; Cancelled: `abandoned`, which is asked every
// 50 ms, was true.
class HttpCall {
 public:
  using AbandonedFn = std::function<bool()>;

  HttpCall(HttpCallOptions options, HttpConnections& connections);
  ~HttpCall();
  HttpCall(const HttpCall&) = delete;
  HttpCall& operator=(const HttpCall&) = delete;

  // Blocks until the headers of the answer have come.
  absl::Status Start(const AbandonedFn& abandoned);
  // After Start.
  int http_status() const;
  std::string content_type() const;

  // Blocks until more of the body has come. False at its end or at an error.
  bool Read(std::string* bytes, const AbandonedFn& abandoned);
  // Once Read returned false: OK if the body is whole.
  const absl::Status& status() const;

 private:
  struct State;

  const std::unique_ptr<State> state_;
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_HTTP_CALL_H_
