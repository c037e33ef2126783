#include "services/gateway/recording_upstream.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace onegrid::gateway {
namespace {

constexpr int kPollMs = 10;
constexpr char kUsage[] =
    R"("usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10})";

std::string Head(int status, absl::string_view type) {
  return absl::StrCat("HTTP/1.1 ", status,
                      " X\r\nConnection: close\r\nSet-Cookie: a=b\r\n"
                      "X-Secret: s\r\nContent-Type: ",
                      type, "\r\n");
}

std::string Whole(int status, absl::string_view type, absl::string_view body) {
  return absl::StrCat(Head(status, type), "Content-Length: ", body.size(),
                      "\r\n\r\n", body);
}

bool Readable(int fd) {
  pollfd poll_fd = {fd, POLLIN, 0};
  return ::poll(&poll_fd, 1, kPollMs) > 0;
}

// Headers and, of the length that they tell, the body.
std::string ReadRequest(int fd, const std::atomic<bool>& stopping) {
  std::string request;
  size_t wanted = std::string::npos;
  while (!stopping && request.size() < wanted) {
    if (!Readable(fd)) continue;
    char bytes[4096];
    const ssize_t n = ::recv(fd, bytes, sizeof(bytes), 0);
    if (n <= 0) return request;
    request.append(bytes, static_cast<size_t>(n));
    const size_t end = request.find("\r\n\r\n");
    if (wanted != std::string::npos || end == std::string::npos) continue;
    const std::string key = "Content-Length: ";
    const size_t begin = request.find(key) + key.size();
    size_t length = 0;
    (void)absl::SimpleAtoi(
        request.substr(begin, request.find("\r\n", begin) - begin), &length);
    wanted = end + 4 + length;
  }
  return request;
}

std::string Chunk(const std::string& text) {
  return absl::StrCat(
      "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":"
      "\"",
      text, "\"}}]}\n\n");
}

}  // namespace

RecordingUpstream::RecordingUpstream()
    : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  ::bind(listener_, generic, size);
  ::listen(listener_, 64);
  ::getsockname(listener_, generic, &size);
  address_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  acceptor_ = std::thread([this] { Accept(); });
}

RecordingUpstream::~RecordingUpstream() {
  stopping_ = true;
  acceptor_.join();
  ::close(listener_);
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mu_);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

void RecordingUpstream::set_location(const std::string& location) {
  absl::MutexLock lock(&mu_);
  location_ = location;
}

std::vector<std::string> RecordingUpstream::requests() const {
  absl::MutexLock lock(&mu_);
  return requests_;
}

void RecordingUpstream::Accept() {
  while (!stopping_) {
    if (!Readable(listener_)) continue;
    const int fd = ::accept(listener_, nullptr, nullptr);
    if (fd < 0) continue;
    absl::MutexLock lock(&mu_);
    threads_.emplace_back([this, fd] { Serve(fd); });
  }
}

void RecordingUpstream::Serve(int fd) {
  const std::string request = ReadRequest(fd, stopping_);
  if (!request.empty()) {
    {
      absl::MutexLock lock(&mu_);
      requests_.push_back(request);
    }
    Answer(fd, request);
  }
  ::shutdown(fd, SHUT_RDWR);
  ::close(fd);
}

bool RecordingUpstream::Send(int fd, absl::string_view bytes) {
  while (!bytes.empty()) {
    pollfd poll_fd = {fd, POLLOUT | POLLRDHUP, 0};
    if (::poll(&poll_fd, 1, kPollMs) == 0) {
      if (stopping_) return false;
      continue;
    }
    const ssize_t n = (poll_fd.revents & POLLRDHUP) != 0
                          ? -1
                          : ::send(fd, bytes.data(), bytes.size(),
                                   MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n <= 0) {
      ++abandoned_;
      return false;
    }
    bytes_sent_ += n;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

void RecordingUpstream::AwaitGone(int fd) {
  while (!stopping_) {
    pollfd poll_fd = {fd, POLLRDHUP, 0};
    if (::poll(&poll_fd, 1, kPollMs) > 0) {
      ++abandoned_;
      return;
    }
  }
}

void RecordingUpstream::Stream(int fd, Mode mode) {
  // Ends with the connection.
  if (!Send(fd, Head(200, "text/event-stream") + "\r\n")) return;
  if (mode == Mode::kSteps) {
    for (int sent = 0; !stopping_;) {
      if (sent < released_) {
        if (!Send(fd, Chunk(absl::StrCat("step", sent++)))) return;
      } else {
        pollfd poll_fd = {fd, POLLRDHUP, 0};
        if (::poll(&poll_fd, 1, kPollMs) > 0) {
          ++abandoned_;
          return;
        }
      }
    }
    return;
  }
  if (mode == Mode::kFlood) {
    const std::string chunk = Chunk(std::string(4096, 'x'));
    while (!stopping_ && Send(fd, chunk)) {
    }
    return;
  }
  Send(fd, Chunk("up"));
  if (mode == Mode::kTruncated) {
    Send(fd, "data: {\"choices\":[{\"ind");
    return;
  }
  Send(fd, absl::StrCat(Chunk("stream"), "data: {\"choices\":[],", kUsage,
                        "}\n\ndata: [DONE]\n\n"));
}

void RecordingUpstream::Answer(int fd, const std::string& request) {
  const Mode mode = mode_;
  const bool stream = absl::StrContains(request, "\"stream\":true");
  switch (mode) {
    case Mode::kReset:
      return;
    case Mode::kHang:
      return AwaitGone(fd);
    case Mode::kStatus:
      Send(fd, Whole(status_, "application/json",
                     R"({"error":{"message":"upstream says no"}})"));
      return;
    case Mode::kHtml:
      Send(fd, Whole(200, "text/html", "<html></html>"));
      return;
    case Mode::kHuge:
      if (Send(fd, Head(200, "application/json") + "\r\n{\"a\":\"")) {
        while (!stopping_ && Send(fd, std::string(65536, 'x'))) {
        }
      }
      return;
    case Mode::kRedirect: {
      absl::MutexLock lock(&mu_);
      Send(fd, absl::StrCat(Head(307, "text/plain"), "Location: ", location_,
                            "\r\nContent-Length: 0\r\n\r\n"));
      return;
    }
    default:
      break;
  }
  if (stream) return Stream(fd, mode);
  std::string answer = Whole(
      200, "application/json",
      absl::StrCat(R"({"object":"upstream","choices":[{"index":0,"text":"up",)",
                   R"("message":{"role":"assistant","content":"up"}}],)",
                   kUsage, "}"));
  if (mode == Mode::kTruncated) answer.resize(answer.size() - 20);
  Send(fd, answer);
}

}  // namespace onegrid::gateway
