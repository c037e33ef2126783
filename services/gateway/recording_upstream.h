// An OpenAI-compatible server that notes what it was sent and fails as told.
#ifndef SERVICES_GATEWAY_RECORDING_UPSTREAM_H_
#define SERVICES_GATEWAY_RECORDING_UPSTREAM_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace onegrid::gateway {

// One request a connection, each in a thread of its own. Thread-safe.
class RecordingUpstream {
 public:
  enum class Mode {
    kAnswer,     // whole or streamed, as asked; usage 7 and 3 tokens
    kStatus,     // the status of set_status, with a JSON error
    kHang,       // nothing until the client goes
    kReset,      // closes without an answer
    kTruncated,  // closes within the body, or within an event of a stream
    kHtml,       // 200 with a page
    kHuge,       // a body without an end
    kRedirect,   // 307 to set_location
    kSteps,      // streams an event for each Release
    kFlood,      // streams as fast as it is read
  };

  RecordingUpstream();
  ~RecordingUpstream();
  RecordingUpstream(const RecordingUpstream&) = delete;
  RecordingUpstream& operator=(const RecordingUpstream&) = delete;

  // 127.0.0.1:port.
  const std::string& address() const { return address_; }
  void set_mode(Mode mode) { mode_ = mode; }
  void set_status(int status) { status_ = status; }
  void set_location(const std::string& location);
  void Release() { ++released_; }

  // All requests so far, byte for byte.
  std::vector<std::string> requests() const;
  // Clients that went away before their answer was whole.
  int abandoned() const { return abandoned_; }
  int64_t bytes_sent() const { return bytes_sent_; }

 private:
  void Accept();
  void Serve(int fd);
  void Answer(int fd, const std::string& request);
  void Stream(int fd, Mode mode);
  // False, and counted: the client has gone.
  bool Send(int fd, absl::string_view bytes);
  // Until the client goes or this ends.
  void AwaitGone(int fd);

  int listener_;
  std::string address_;
  std::atomic<Mode> mode_ = Mode::kAnswer;
  std::atomic<int> status_ = 500;
  std::atomic<int> released_ = 0;
  std::atomic<int> abandoned_ = 0;
  std::atomic<int64_t> bytes_sent_ = 0;
  std::atomic<bool> stopping_ = false;
  mutable absl::Mutex mu_;
  std::string location_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> requests_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
  std::thread acceptor_;
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_RECORDING_UPSTREAM_H_
