#include "services/controller/job_state.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"

namespace onegrid::controller {
namespace {

// What an entry of the table leads to, besides a plain next state.
enum class Rule {
  kPlain,
  // One more attempt begins.
  kBegin,
  // Back to the queue while attempts are left, else FAILED.
  kRetry,
};

struct Entry {
  v1::JobState from;
  JobEvent event;
  v1::JobState to;
  Rule rule = Rule::kPlain;
};

constexpr Entry kTable[] = {
    {v1::QUEUED, JobEvent::kStart, v1::RUNNING, Rule::kBegin},
    {v1::QUEUED, JobEvent::kCancel, v1::CANCELLED},
    {v1::RUNNING, JobEvent::kSucceed, v1::SUCCEEDED},
    {v1::RUNNING, JobEvent::kFail, v1::FAILED},
    {v1::RUNNING, JobEvent::kFailRetriable, v1::QUEUED, Rule::kRetry},
    {v1::RUNNING, JobEvent::kLoseWorker, v1::QUEUED, Rule::kRetry},
    {v1::RUNNING, JobEvent::kCancel, v1::CANCELLING},
    // A result that crosses a cancellation is dropped: the user was told that
    // the job ends CANCELLED.
    {v1::CANCELLING, JobEvent::kSucceed, v1::CANCELLED},
    {v1::CANCELLING, JobEvent::kFail, v1::CANCELLED},
    {v1::CANCELLING, JobEvent::kFailRetriable, v1::CANCELLED},
    {v1::CANCELLING, JobEvent::kLoseWorker, v1::CANCELLED},
    {v1::CANCELLING, JobEvent::kCancel, v1::CANCELLING},
};

const Entry* FindEntry(v1::JobState state, JobEvent event) {
  for (const Entry& entry : kTable) {
    if (entry.from == state && entry.event == event) return &entry;
  }
  return nullptr;
}

bool IsHeld(v1::JobState state) {
  return state == v1::RUNNING || state == v1::CANCELLING;
}

}  // namespace

absl::StatusOr<JobChange> ApplyJobEvent(const JobFacts& facts, JobEvent event) {
  const Entry* entry = FindEntry(facts.state, event);
  if (entry == nullptr) {
    const std::string& state = v1::JobState_Name(facts.state);
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "ILLEGAL_TRANSITION",
        absl::StrCat("a job that is ", state, " cannot ", JobEventName(event)),
        {{"state", state}, {"event", std::string(JobEventName(event))}});
  }
  JobChange change;
  change.facts = facts;
  change.facts.state = entry->to;
  if (entry->rule == Rule::kBegin) ++change.facts.epoch;
  if (entry->rule == Rule::kRetry && facts.epoch >= facts.max_attempts) {
    change.facts.state = v1::FAILED;
    change.attempts_exhausted = true;
  }
  if (IsHeld(facts.state) && !IsHeld(change.facts.state)) {
    change.effects.push_back(JobEffect::kRevoke);
  }
  if (change.facts.state == v1::QUEUED) {
    change.effects.push_back(JobEffect::kOffer);
  }
  if (IsFinal(change.facts.state)) change.effects.push_back(JobEffect::kEnded);
  return change;
}

bool IsFinal(v1::JobState state) {
  return state == v1::SUCCEEDED || state == v1::FAILED ||
         state == v1::CANCELLED;
}

absl::string_view JobEventName(JobEvent event) {
  switch (event) {
    case JobEvent::kStart:
      return "start";
    case JobEvent::kSucceed:
      return "succeed";
    case JobEvent::kFail:
      return "fail";
    case JobEvent::kFailRetriable:
      return "fail_retriable";
    case JobEvent::kLoseWorker:
      return "lose_worker";
    case JobEvent::kCancel:
      return "cancel";
  }
  return "";
}

absl::string_view JobEffectName(JobEffect effect) {
  switch (effect) {
    case JobEffect::kOffer:
      return "offer";
    case JobEffect::kRevoke:
      return "revoke";
    case JobEffect::kEnded:
      return "ended";
  }
  return "";
}

}  // namespace onegrid::controller
