#include "services/gateway/http_server.h"

#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/log.h"

namespace onegrid::gateway {
namespace {

constexpr unsigned kBacklog = 512;
constexpr size_t kHeaderBytesMax = 64 << 10;
constexpr size_t kPartBytesMax = 16 << 10;
// A body over the limit is read on and dropped up to here, for a client that
// finds its connection closed while it sends does not see the 413.
constexpr size_t kDroppedBytesMax = 32 << 20;

bool ClientGone(int fd) {
  pollfd poll_fd = {fd, POLLRDHUP, 0};
  return ::poll(&poll_fd, 1, 0) > 0 && poll_fd.revents != 0;
}

std::string Header(MHD_Connection* connection, const char* name) {
  const char* value =
      MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
  return value == nullptr ? "" : value;
}

// All values of a header that may come more than once.
std::string AllValues(MHD_Connection* connection, absl::string_view name) {
  std::pair<absl::string_view, std::string> found = {name, ""};
  MHD_get_connection_values(
      connection, MHD_HEADER_KIND,
      [](void* argument, MHD_ValueKind, const char* key, const char* value) {
        auto& [wanted, values] =
            *static_cast<std::pair<absl::string_view, std::string>*>(argument);
        if (absl::EqualsIgnoreCase(key, wanted)) {
          // Also of an empty value something is seen.
          absl::StrAppend(&values, values.empty() ? "" : ",",
                          value == nullptr || *value == '\0' ? " " : value);
        }
        return MHD_YES;
      },
      &found);
  return found.second;
}

int ConnectionFd(MHD_Connection* connection) {
  return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)
      ->connect_fd;
}

void SetTimeout(MHD_Connection* connection, absl::Duration timeout) {
  MHD_set_connection_option(
      connection, MHD_CONNECTION_OPTION_TIMEOUT,
      static_cast<unsigned>(absl::ToInt64Seconds(timeout)));
}

// One request and its response; the library holds it while they last.
struct Exchange {
  HttpRequest request;
  HttpResponse response;
  size_t dropped_bytes = 0;
  std::string part;      // not yet taken of a streamed body
  size_t part_sent = 0;  // bytes of it that were
};

// The library's pull of a streamed body. It must not get 0 bytes.
ssize_t ReadPart(void* argument, uint64_t, char* out, size_t size) {
  auto& exchange = *static_cast<Exchange*>(argument);
  while (exchange.part_sent == exchange.part.size()) {
    exchange.part.clear();
    exchange.part_sent = 0;
    if (!exchange.response.next_part(&exchange.part)) {
      return MHD_CONTENT_READER_END_OF_STREAM;
    }
  }
  const size_t n = std::min(size, exchange.part.size() - exchange.part_sent);
  std::memcpy(out, exchange.part.data() + exchange.part_sent, n);
  exchange.part_sent += n;
  return static_cast<ssize_t>(n);
}

struct AddressList {
  ~AddressList() {
    if (first != nullptr) ::freeaddrinfo(first);
  }
  addrinfo* first = nullptr;
};

absl::Status InvalidAddress(const std::string& host, int port) {
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_FLAG",
      absl::StrCat(host, ":", port, " is not an address to listen on"),
      {{"host", host}, {"port", absl::StrCat(port)}});
}

}  // namespace

struct HttpServer::State {
  State(const HttpServerOptions& o, HttpHandler h)
      : options(o), handler(std::move(h)) {}

  static MHD_Result OnRequest(void* self, MHD_Connection* connection,
                              const char* url, const char* method, const char*,
                              const char* data, size_t* size, void** exchange) {
    return static_cast<State*>(self)->Receive(
        connection, url, method, data, size,
        reinterpret_cast<Exchange**>(exchange));
  }
  static void OnDone(void* self, MHD_Connection* connection, void** exchange,
                     MHD_RequestTerminationCode code) {
    static_cast<State*>(self)->Complete(
        connection, reinterpret_cast<Exchange**>(exchange),
        code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
  }

  // Called with the headers, then for each run of the body, then at its end.
  MHD_Result Receive(MHD_Connection* connection, const char* url,
                     const char* method, const char* data, size_t* size,
                     Exchange** slot);
  MHD_Result Answer(MHD_Connection* connection, Exchange& exchange);
  void Complete(MHD_Connection* connection, Exchange** slot, bool sent);

  // Waits until no request is in progress; false after `timeout`.
  bool AwaitIdle(absl::Duration timeout) {
    absl::MutexLock lock(&mu);
    return mu.AwaitWithTimeout(
        absl::Condition(+[](int* n) { return *n == 0; }, &active), timeout);
  }

  const HttpServerOptions options;
  const HttpHandler handler;
  MHD_Daemon* daemon = nullptr;
  std::atomic<bool> draining = false;
  std::atomic<bool> stopping = false;
  absl::Mutex mu;
  int active ABSL_GUARDED_BY(mu) = 0;
};

MHD_Result HttpServer::State::Receive(MHD_Connection* connection,
                                      const char* url, const char* method,
                                      const char* data, size_t* size,
                                      Exchange** slot) {
  if (*slot == nullptr) {
    *slot = new Exchange;
    HttpRequest& request = (*slot)->request;
    request.method = method;
    request.path = url;
    request.authorization = Header(connection, "Authorization");
    request.content_encoding = Header(connection, "Content-Encoding");
    request.privacy = AllValues(connection, "x-onegrid-privacy");
    request.task = AllValues(connection, "x-onegrid-task");
    const int fd = ConnectionFd(connection);
    request.client_gone = [fd] { return ClientGone(fd); };
    request.stopping = [this] { return stopping.load(); };
    absl::MutexLock lock(&mu);
    ++active;
    return MHD_YES;
  }
  Exchange& exchange = **slot;
  if (*size == 0) return Answer(connection, exchange);
  HttpRequest& request = exchange.request;
  if (request.body.size() + *size > options.body_bytes_max) {
    request.body_too_large = true;
    request.body.clear();
    request.body.shrink_to_fit();
  }
  if (request.body_too_large) {
    exchange.dropped_bytes += *size;
    if (exchange.dropped_bytes > kDroppedBytesMax) return MHD_NO;
  } else {
    request.body.append(data, *size);
  }
  *size = 0;
  return MHD_YES;
}

MHD_Result HttpServer::State::Answer(MHD_Connection* connection,
                                     Exchange& exchange) {
  // The wait for an answer counts as idle time.
  SetTimeout(connection, options.answer_timeout);
  HttpResponse& response = exchange.response;
  response = handler(exchange.request);
  MHD_Response* reply =
      response.next_part
          ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, kPartBytesMax,
                                              ReadPart, &exchange, nullptr)
          : MHD_create_response_from_buffer(response.body.size(),
                                            response.body.data(),
                                            MHD_RESPMEM_PERSISTENT);
  if (reply == nullptr) return MHD_NO;
  MHD_add_response_header(reply, "Content-Type", response.content_type.c_str());
  for (const auto& [name, value] : response.headers) {
    MHD_add_response_header(reply, name.c_str(), value.c_str());
  }
  if (draining) MHD_add_response_header(reply, "Connection", "close");
  const MHD_Result result = MHD_queue_response(
      connection, static_cast<unsigned>(response.status), reply);
  MHD_destroy_response(reply);
  return result;
}

void HttpServer::State::Complete(MHD_Connection* connection, Exchange** slot,
                                 bool sent) {
  if (*slot == nullptr) return;
  (*slot)->response.on_done(sent);
  delete *slot;
  *slot = nullptr;
  SetTimeout(connection, options.idle_timeout);
  absl::MutexLock lock(&mu);
  --active;
}

HttpServer::HttpServer(HttpServerOptions options, HttpHandler handler)
    : options_(std::move(options)),
      state_(std::make_unique<State>(options_, std::move(handler))) {}

HttpServer::~HttpServer() { Stop(); }

absl::Status HttpServer::Start() {
  if (options_.port < 0 || options_.port > 65535) {
    return InvalidAddress(options_.host, options_.port);
  }
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  AddressList addresses;
  if (::getaddrinfo(options_.host.c_str(), absl::StrCat(options_.port).c_str(),
                    &hints, &addresses.first) != 0) {
    return InvalidAddress(options_.host, options_.port);
  }
  unsigned flags = MHD_USE_THREAD_PER_CONNECTION |
                   MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC;
  if (addresses.first->ai_family == AF_INET6) flags |= MHD_USE_IPv6;
  state_->daemon = MHD_start_daemon(
      flags, static_cast<uint16_t>(options_.port), nullptr, nullptr,
      &State::OnRequest, state_.get(), MHD_OPTION_SOCK_ADDR,
      addresses.first->ai_addr, MHD_OPTION_NOTIFY_COMPLETED, &State::OnDone,
      state_.get(), MHD_OPTION_CONNECTION_LIMIT,
      static_cast<unsigned>(options_.connections_max),
      MHD_OPTION_CONNECTION_TIMEOUT,
      static_cast<unsigned>(absl::ToInt64Seconds(options_.idle_timeout)),
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, kHeaderBytesMax,
      MHD_OPTION_LISTEN_BACKLOG_SIZE, kBacklog, MHD_OPTION_END);
  const bool is_ipv6 = absl::StrContains(options_.host, ':');
  const std::string host =
      is_ipv6 ? absl::StrCat("[", options_.host, "]") : options_.host;
  if (state_->daemon == nullptr) {
    const std::string wanted = absl::StrCat(host, ":", options_.port);
    return common::MakeError(absl::StatusCode::kUnavailable, "PORT_IN_USE",
                             absl::StrCat("cannot listen on ", wanted,
                                          ": the port is taken or the host is "
                                          "not an address of this machine"),
                             {{"address", wanted}});
  }
  address_ = absl::StrCat(
      host, ":",
      MHD_get_daemon_info(state_->daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
  if (!options_.port_file.empty()) {
    RETURN_IF_ERROR(common::WriteFileAtomic(options_.port_file, address_));
  }
  common::LogInfo("serving", {{"address", address_}});
  return absl::OkStatus();
}

void HttpServer::Stop() {
  if (state_->daemon == nullptr) return;
  state_->draining = true;
  const int listener = MHD_quiesce_daemon(state_->daemon);
  if (listener != MHD_INVALID_SOCKET) ::close(listener);
  if (!state_->AwaitIdle(options_.drain_timeout)) {
    state_->stopping = true;
    // Lets the clients of answers that are cut off hear of it.
    state_->AwaitIdle(absl::Seconds(2));
  }
  state_->stopping = true;
  MHD_stop_daemon(state_->daemon);
  state_->daemon = nullptr;
  if (!options_.port_file.empty()) ::unlink(options_.port_file.c_str());
  common::LogInfo("stopped", {{"address", address_}});
}

}  // namespace onegrid::gateway
