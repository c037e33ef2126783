// The life of a job as a pure function: Apply(state, event) -> state, effects.
// Every state change of an import, tuning job, export, evaluation or pipeline
// run goes through it. Thread-safe: no state of its own.
//
//   QUEUED --start--> RUNNING --succeed--> SUCCEEDED
//     |  ^               |-----fail------> FAILED
//     |  |               |-----cancel----> CANCELLING --any end--> CANCELLED
//     |  +--lost, retry--+ while attempts are left, else FAILED
//     +-------cancel------------------------------------> CANCELLED
#ifndef SERVICES_CONTROLLER_JOB_STATE_H_
#define SERVICES_CONTROLLER_JOB_STATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/onegrid/v1/common.pb.h"

namespace onegrid::controller {

// What decides a job's next state.
struct JobFacts {
  v1::JobState state = v1::QUEUED;
  // Attempts started so far; the epoch of the current one.
  int epoch = 0;
  // Attempts that may be started in all, at least 1.
  int max_attempts = 1;

  bool operator==(const JobFacts&) const = default;
};

enum class JobEvent {
  // A worker took the job.
  kStart,
  // The attempt ended with a result.
  kSucceed,
  // The attempt ended with an error that another attempt would meet too.
  kFail,
  // The attempt ended with an error that another attempt may not meet.
  kFailRetriable,
  // The attempt's lease ran out, or its worker died.
  kLoseWorker,
  // The user asked to stop.
  kCancel,
};

// What the caller does once the new state is durable.
enum class JobEffect {
  // The job waits for a worker: wake those that ask for work.
  kOffer,
  // No worker holds the job any more: forget the lease.
  kRevoke,
  // The state is final: wake whoever waits for the job.
  kEnded,
};

struct JobChange {
  JobFacts facts;
  std::vector<JobEffect> effects;
  // A job that would have been tried again had no attempt left.
  bool attempts_exhausted = false;
};

// FailedPrecondition (ILLEGAL_TRANSITION): the table has no entry.
absl::StatusOr<JobChange> ApplyJobEvent(const JobFacts& facts, JobEvent event);

// SUCCEEDED, FAILED or CANCELLED.
bool IsFinal(v1::JobState state);

// "start", "succeed", "fail", "fail_retriable", "lose_worker", "cancel".
absl::string_view JobEventName(JobEvent event);
absl::string_view JobEffectName(JobEffect effect);

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_JOB_STATE_H_
