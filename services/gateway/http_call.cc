#include "services/gateway/http_call.h"

#include <curl/curl.h>

#include <algorithm>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"

namespace onegrid::gateway {
namespace {

constexpr size_t kIdleMax = 32;
constexpr size_t kHeaderBytesMax = 64 << 10;
// More than this is left with the server until it has been read.
constexpr size_t kBufferBytesMax = 64 << 10;
constexpr int kPollMs = 50;

absl::Status StatusOf(CURLcode code) {
  const char* message = curl_easy_strerror(code);
  switch (code) {
    case CURLE_OK:
      return absl::OkStatus();
    case CURLE_OPERATION_TIMEDOUT:
      return absl::DeadlineExceededError(message);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return absl::UnavailableError(message);
    default:
      return absl::AbortedError(message);
  }
}

}  // namespace

// A multi handle keeps the connections of its transfers, and is used by one
// transfer at a time.
struct HttpConnections::State {
  CURLM* Take() {
    absl::MutexLock lock(&mu);
    if (idle.empty()) return curl_multi_init();
    CURLM* multi = idle.back();
    idle.pop_back();
    return multi;
  }
  void Give(CURLM* multi) {
    {
      absl::MutexLock lock(&mu);
      if (idle.size() < kIdleMax) {
        idle.push_back(multi);
        return;
      }
    }
    curl_multi_cleanup(multi);
  }

  absl::Mutex mu;
  std::vector<CURLM*> idle ABSL_GUARDED_BY(mu);
};

HttpConnections::HttpConnections() : state_(std::make_unique<State>()) {
  static const CURLcode once = curl_global_init(CURL_GLOBAL_DEFAULT);
  (void)once;
}

HttpConnections::~HttpConnections() {
  absl::MutexLock lock(&state_->mu);
  for (CURLM* multi : state_->idle) curl_multi_cleanup(multi);
}

struct HttpCall::State {
  State(HttpCallOptions o, HttpConnections::State& c)
      : options(std::move(o)), connections(c) {}

  static size_t OnHeader(char* data, size_t, size_t size, void* self) {
    return static_cast<State*>(self)->TakeHeader({data, size}) ? size : 0;
  }
  static size_t OnBody(char* data, size_t, size_t size, void* self) {
    return static_cast<State*>(self)->TakeBody({data, size});
  }

  bool TakeHeader(absl::string_view line) {
    header_bytes += line.size();
    if (header_bytes > kHeaderBytesMax) return false;
    if (line != "\r\n" && line != "\n") return true;
    long code = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &code);
    // Of "100 Continue" and its like another answer follows.
    if (code < 200) return true;
    http_status = static_cast<int>(code);
    const char* type = nullptr;
    curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &type);
    if (type != nullptr) content_type = type;
    has_headers = true;
    return true;
  }

  size_t TakeBody(absl::string_view bytes) {
    if (received.size() >= kBufferBytesMax) {
      paused = true;
      return CURL_WRITEFUNC_PAUSE;
    }
    body_bytes += bytes.size();
    if (body_bytes > options.bytes_max) {
      too_large = true;
      return 0;
    }
    received.append(bytes.data(), bytes.size());
    return bytes.size();
  }

  void Begin();
  void End(absl::Status with) {
    done = true;
    status = std::move(with);
  }
  // Moves the transfer on until it is done or `enough`.
  void Pump(const AbandonedFn& abandoned, const std::function<bool()>& enough);

  const HttpCallOptions options;
  HttpConnections::State& connections;
  CURLM* multi = nullptr;
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  bool has_headers = false;
  int http_status = 0;
  std::string content_type;
  size_t header_bytes = 0;
  size_t body_bytes = 0;
  std::string received;
  bool paused = false;
  bool too_large = false;
  bool done = false;
  absl::Status status;
};

void HttpCall::State::Begin() {
  multi = connections.Take();
  easy = curl_easy_init();
  if (multi == nullptr || easy == nullptr) {
    return End(absl::UnavailableError("libcurl gives no handle"));
  }
  for (const std::string& header : options.headers) {
    headers = curl_slist_append(headers, header.c_str());
  }
  // Large bodies wait for nothing.
  headers = curl_slist_append(headers, "Expect:");
  const auto set = [&](CURLoption option, auto value) {
    if (curl_easy_setopt(easy, option, value) == CURLE_OK) return;
    End(absl::UnavailableError("libcurl refuses an option"));
  };
  set(CURLOPT_URL, options.url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_PROXY, "");
  set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_HTTPHEADER, headers);
  set(CURLOPT_POST, 1L);
  set(CURLOPT_POSTFIELDSIZE_LARGE,
      static_cast<curl_off_t>(options.body.size()));
  set(CURLOPT_POSTFIELDS, options.body.data());
  set(CURLOPT_CONNECTTIMEOUT_MS,
      static_cast<long>(absl::ToInt64Milliseconds(options.connect_timeout)));
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  if (!options.ca_file.empty()) set(CURLOPT_CAINFO, options.ca_file.c_str());
  set(CURLOPT_HEADERFUNCTION, &State::OnHeader);
  set(CURLOPT_HEADERDATA, static_cast<void*>(this));
  set(CURLOPT_WRITEFUNCTION, &State::OnBody);
  set(CURLOPT_WRITEDATA, static_cast<void*>(this));
  if (!done && curl_multi_add_handle(multi, easy) != CURLM_OK) {
    End(absl::UnavailableError("libcurl takes no transfer"));
  }
}

void HttpCall::State::Pump(const AbandonedFn& abandoned,
                           const std::function<bool()>& enough) {
  if (paused) {
    paused = false;
    // May call OnBody.
    curl_easy_pause(easy, CURLPAUSE_CONT);
  }
  while (!done && !enough()) {
    if (abandoned()) return End(absl::CancelledError("abandoned"));
    const absl::Duration left = options.deadline - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return End(absl::DeadlineExceededError("the request took too long"));
    }
    int running = 0;
    curl_multi_perform(multi, &running);
    int more = 0;
    if (const CURLMsg* message = curl_multi_info_read(multi, &more);
        message != nullptr && message->msg == CURLMSG_DONE) {
      return End(too_large ? absl::ResourceExhaustedError(
                                 "the answer is larger than allowed")
                           : StatusOf(message->data.result));
    }
    if (enough()) return;
    const absl::Duration wait = std::min(left, absl::Milliseconds(kPollMs));
    curl_multi_poll(multi, nullptr, 0,
                    static_cast<int>(absl::ToInt64Milliseconds(wait)) + 1,
                    nullptr);
  }
}

HttpCall::HttpCall(HttpCallOptions options, HttpConnections& connections)
    : state_(std::make_unique<State>(std::move(options), *connections.state_)) {
}

HttpCall::~HttpCall() {
  if (state_->easy != nullptr) {
    curl_multi_remove_handle(state_->multi, state_->easy);
    curl_easy_cleanup(state_->easy);
  }
  curl_slist_free_all(state_->headers);
  if (state_->multi != nullptr) state_->connections.Give(state_->multi);
}

absl::Status HttpCall::Start(const AbandonedFn& abandoned) {
  state_->Begin();
  state_->Pump(abandoned, [this] { return state_->has_headers; });
  return state_->has_headers ? absl::OkStatus() : state_->status;
}

int HttpCall::http_status() const { return state_->http_status; }

std::string HttpCall::content_type() const { return state_->content_type; }

bool HttpCall::Read(std::string* bytes, const AbandonedFn& abandoned) {
  if (state_->received.empty()) {
    state_->Pump(abandoned, [this] { return !state_->received.empty(); });
  }
  if (state_->received.empty()) return false;
  *bytes = std::exchange(state_->received, "");
  return true;
}

const absl::Status& HttpCall::status() const { return state_->status; }

}  // namespace onegrid::gateway
