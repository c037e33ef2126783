#include "services/inference/open_inference_stream.h"

#include <utility>

#include "absl/time/clock.h"

namespace onegrid::inference {

OpenInferenceStream::OpenInferenceStream(
    OpenInferenceService& service, CallContext context, Write write,
    std::function<void(const absl::Status&)> failed)
    : service_(service),
      context_(std::move(context)),
      failed_(std::move(failed)),
      write_(std::move(write)) {}

void OpenInferenceStream::Drain(std::function<void()> end) {
  absl::MutexLock lock(&mu_);
  end_ = std::move(end);
  if (workers_.empty()) end_();  // Nothing was asked; else a worker does it.
}

void OpenInferenceStream::EndOnceArrived() {
  const auto is_busy = [this] {
    mu_.AssertReaderHeld();
    return closed_ || unanswered_ > 0;
  };
  if (mu_.AwaitWithDeadline(absl::Condition(&is_busy),
                            answered_ + kTimeToArrive)) {
    return;
  }
  if (ended_) return;
  ended_ = true;
  end_();
}

void OpenInferenceStream::Run(
    absl::FunctionRef<bool(oip::ModelInferRequest*)> read) {
  oip::ModelInferRequest request;
  while (read(&request)) Add(std::move(request));
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
  }
  for (std::thread& worker : workers_) worker.join();
}

void OpenInferenceStream::Add(oip::ModelInferRequest request) {
  absl::MutexLock lock(&mu_);
  const auto has_room = [this] {
    mu_.AssertReaderHeld();
    return unanswered_ < kMaxStreamRequests;
  };
  mu_.Await(absl::Condition(&has_room));
  queue_.push_back(std::move(request));
  ++unanswered_;
  if (unanswered_ > static_cast<int>(workers_.size())) {
    workers_.emplace_back([this] { Work(); });
  }
}

void OpenInferenceStream::Work() {
  const auto has_work = [this] {
    mu_.AssertReaderHeld();
    return closed_ || !queue_.empty() || is_to_end();
  };
  const auto write = [this](const oip::ModelStreamInferResponse& response) {
    absl::MutexLock lock(&write_mu_);
    return write_(response);
  };
  while (true) {
    oip::ModelInferRequest request;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(&has_work));
      if (queue_.empty() && closed_) return;
      if (queue_.empty()) {
        EndOnceArrived();
        continue;
      }
      request = std::move(queue_.front());
      queue_.pop_front();
    }
    const absl::Status status = service_.StreamInfer(request, context_, write);
    if (!status.ok()) failed_(status);
    absl::MutexLock lock(&mu_);
    --unanswered_;
    answered_ = absl::Now();
  }
}

}  // namespace onegrid::inference
