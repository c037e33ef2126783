// Wakes whoever waits for the controller's state to change.
#ifndef SERVICES_CONTROLLER_CHANGE_SIGNAL_H_
#define SERVICES_CONTROLLER_CHANGE_SIGNAL_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace onegrid::controller {

// A counter that can be waited for. Thread-safe.
class ChangeSignal {
 public:
  // Read it before reading the state that is waited for.
  uint64_t version() const {
    absl::MutexLock lock(&mutex_);
    return version_;
  }

  void Notify() {
    absl::MutexLock lock(&mutex_);
    ++version_;
    changed_.SignalAll();
  }

  // Waits end at once from now on.
  void Close() {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    changed_.SignalAll();
  }

  bool closed() const {
    absl::MutexLock lock(&mutex_);
    return closed_;
  }

  // Blocks until the version is not `seen`, Close, or the timeout.
  void WaitPast(uint64_t seen, absl::Duration timeout) {
    const absl::Time deadline = absl::Now() + timeout;
    absl::MutexLock lock(&mutex_);
    while (version_ == seen && !closed_) {
      if (changed_.WaitWithDeadline(&mutex_, deadline)) return;
    }
  }

 private:
  mutable absl::Mutex mutex_;
  absl::CondVar changed_;
  uint64_t version_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_CHANGE_SIGNAL_H_
