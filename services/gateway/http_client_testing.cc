#include "services/gateway/http_client_testing.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace onegrid::gateway {
namespace {

constexpr int kTimeoutMs = 5000;

}  // namespace

RawClient::RawClient(const std::string& address)
    : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  int port = 0;
  (void)absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port);
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  connected_ =
      ::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0;
}

RawClient::~RawClient() { ::close(fd_); }

void RawClient::Send(absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

bool RawClient::ReadMore() {
  pollfd poll_fd = {fd_, POLLIN, 0};
  if (::poll(&poll_fd, 1, kTimeoutMs) <= 0) return false;
  char bytes[4096];
  const ssize_t n = ::recv(fd_, bytes, sizeof(bytes), 0);
  if (n <= 0) return false;
  received_.append(bytes, static_cast<size_t>(n));
  return true;
}

std::string RawClient::ReadUntil(absl::string_view end) {
  size_t position;
  while ((position = absl::string_view(received_).find(end)) ==
         std::string::npos) {
    if (!ReadMore()) return std::exchange(received_, "");
  }
  const std::string read = received_.substr(0, position + end.size());
  received_.erase(0, read.size());
  return read;
}

std::string RawClient::ReadAll() {
  while (ReadMore()) {
  }
  return std::exchange(received_, "");
}

std::string Post(absl::string_view path, absl::string_view body) {
  return absl::StrCat("POST ", path,
                      " HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(),
                      "\r\n\r\n", body);
}

std::string Ask(const std::string& address, absl::string_view request) {
  RawClient client(address);
  const size_t line = request.find("\r\n") + 2;
  client.Send(absl::StrCat(request.substr(0, line), "Connection: close\r\n",
                           request.substr(line)));
  return client.ReadAll();
}

}  // namespace onegrid::gateway
