// The requests of one ModelStreamInfer call, run side by side.
#ifndef SERVICES_INFERENCE_OPEN_INFERENCE_STREAM_H_
#define SERVICES_INFERENCE_OPEN_INFERENCE_STREAM_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/open_inference/grpc_predict_v2.pb.h"
#include "services/inference/call_context.h"
#include "services/inference/open_inference_service.h"

namespace onegrid::inference {

// Most requests of one stream that run at once. No more are read until one of
// them has ended: the caller's writes wait.
inline constexpr int kMaxStreamRequests = 32;

// What has been written but has not arrived is lost where a call is ended.
inline constexpr absl::Duration kTimeToArrive = absl::Milliseconds(250);

class OpenInferenceStream {
 public:
  using Write = std::function<bool(const oip::ModelStreamInferResponse&)>;

  // `context` is that of the call; `write` is called by one thread at a time;
  // `failed` gets the error of each request that failed, from any thread.
  OpenInferenceStream(OpenInferenceService& service, CallContext context,
                      Write write,
                      std::function<void(const absl::Status&)> failed);

  // Reads requests until there are no more, and returns when all have been
  // answered. Call it once.
  void Run(absl::FunctionRef<bool(oip::ModelInferRequest*)> read);

  // Calls `end`, which is to end the call, once all requests that were read are
  // answered and the last answer had kTimeToArrive. Thread-safe.
  void Drain(std::function<void()> end);

 private:
  // Waits until the last answer has arrived, and ends the call if no request
  // came meanwhile.
  void EndOnceArrived() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool is_to_end() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return end_ != nullptr && !ended_ && unanswered_ == 0;
  }
  // Answers queued requests until there will be none.
  void Work();
  void Add(oip::ModelInferRequest request);

  OpenInferenceService& service_;
  const CallContext context_;
  const std::function<void(const absl::Status&)> failed_;

  absl::Mutex mu_;
  std::deque<oip::ModelInferRequest> queue_ ABSL_GUARDED_BY(mu_);
  int unanswered_ ABSL_GUARDED_BY(mu_) = 0;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time answered_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();  // last
  std::function<void()> end_ ABSL_GUARDED_BY(mu_);  // empty: not draining
  bool ended_ ABSL_GUARDED_BY(mu_) = false;

  absl::Mutex write_mu_;
  const Write write_ ABSL_GUARDED_BY(write_mu_);

  std::vector<std::thread> workers_;  // Run's, grown under mu_
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_OPEN_INFERENCE_STREAM_H_
