// A connection to a server on loopback, byte for byte, for tests.
#ifndef SERVICES_GATEWAY_HTTP_CLIENT_TESTING_H_
#define SERVICES_GATEWAY_HTTP_CLIENT_TESTING_H_

#include <string>

#include "absl/strings/string_view.h"

namespace onegrid::gateway {

// Each read gives up after five seconds. Thread-compatible.
class RawClient {
 public:
  // `address`: 127.0.0.1:port.
  explicit RawClient(const std::string& address);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool connected() const { return connected_; }
  void Send(absl::string_view bytes);
  // What came up to and with `end`; less where the connection ends before.
  std::string ReadUntil(absl::string_view end);
  // What comes until the server closes.
  std::string ReadAll();

 private:
  bool ReadMore();

  int fd_;
  bool connected_;
  std::string received_;
};

// A POST with its body, on a connection that is kept.
std::string Post(absl::string_view path, absl::string_view body);

// The whole answer to one request on a connection of its own.
std::string Ask(const std::string& address, absl::string_view request);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_HTTP_CLIENT_TESTING_H_
