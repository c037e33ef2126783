// SIGTERM and SIGINT as something that can be waited for.
#ifndef SERVICES_COMMON_STOP_SIGNAL_H_
#define SERVICES_COMMON_STOP_SIGNAL_H_

#include "absl/time/time.h"

namespace onegrid::common {

// Starts to catch SIGTERM and SIGINT, and ignores SIGPIPE. Idempotent.
void InstallStopSignal();

// True once one of them has arrived. Thread-safe.
bool StopRequested();

// Blocks until a stop was requested or `timeout` passed; returns
// StopRequested(). Any number of threads may wait.
bool WaitForStop(absl::Duration timeout);

// Acts as if a signal had arrived.
void RequestStop();

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_STOP_SIGNAL_H_
