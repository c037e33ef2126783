// Whose turn it is among the tasks that wait for a slot.
#ifndef SERVICES_INFERENCE_FAIR_QUEUE_H_
#define SERVICES_INFERENCE_FAIR_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/inference/task.h"

namespace onegrid::inference {

// A task in the queue.
struct Waiting {
  std::shared_ptr<Task> task;
  // Its priority, or that of the tasks it was preferred to. See FairQueue.
  int rank = 0;
  int64_t arrival = 0;  // counts tasks
  // Counts starts; that of its first one. -1: it has not been started.
  int64_t started = -1;
  absl::Time since = absl::InfiniteFuture();  // in the queue for the first time

  bool fresh() const { return started < 0; }
};

// Order: tasks of the highest rank first; among those, the caller to whom the
// fewest tokens were given (Charge); of one caller, in order of arrival, those
// that were started and put back first.
//
// Callers are compared by the virtual token counter of Sheng et al., "Fairness
// in Serving Large Language Models" (OSDI 2024): a caller of whom nothing
// waited is lifted to the least that one who waits has, so that nobody saves up
// turns while idle. Counters of callers of whom nothing waits are forgotten
// once the lift makes up for them, or when there are more than kMostAccounts.
//
// No task that is not given up (Late) waits forever: one start in kTurn, while
// tasks of several ranks wait, is that of the longest waiting one below the
// highest rank, which has the highest rank from then on.
//
// The limit is on tasks that were not started. When it is reached, a new one of
// a rank above the lowest that waits takes the place of the newest task of that
// rank of the caller who has most there; a new one of that rank does so if its
// own caller has at least two fewer. So no caller can shut others out.
//
// Thread-compatible.
class FairQueue {
 public:
  static constexpr int kTurn = 8;
  static constexpr size_t kMostAccounts = 1024;

  explicit FairQueue(int limit) : limit_(limit) {}

  // Queues a new task, or not: false. `displaced` is one whose place it took.
  bool Push(std::shared_ptr<Task> task,
            std::optional<std::shared_ptr<Task>>* displaced,
            absl::Time now = absl::Now());
  // Puts a task that was started at the head of its line, whatever the limit.
  void PutBack(Waiting waiting);

  // Whose turn it is, with the rank it will have.
  std::optional<Waiting> Next() const;
  // Takes out what Next gave, whoever was put back since; false if it is no
  // longer there.
  bool Take(const Waiting& next);
  // Takes a task out without a turn; false if it is not there.
  bool Remove(const Task* task);

  // Tokens given to a caller, by weight.
  void Charge(const std::string& caller, double tokens);

  std::vector<std::shared_ptr<Task>> tasks() const;
  // Of the tasks that were not started and came before `time` those that are
  // too many where `keep` may wait: of the lowest rank of which there are any,
  // each time the first of the caller who has most tasks there. A caller who
  // has at least two fewer than another keeps its own.
  std::vector<std::shared_ptr<Task>> Late(absl::Time time, int keep) const;
  int size() const { return size_; }
  // Callers that are remembered.
  size_t accounts() const { return accounts_.size(); }

 private:
  using Line = std::deque<Waiting>;           // of a caller, never empty
  using Class = std::map<std::string, Line>;  // of a rank, never empty
  using Classes = std::map<int, Class, std::greater<int>>;

  // A task by its place: always at the head of its line but for Remove.
  struct Pick {
    Classes::const_iterator rank;
    Class::const_iterator caller;
    bool by_turn;  // not of the highest rank
  };
  Pick Choose() const;  // the queue is not empty
  // The line whose newest task makes room for one of `caller`, if there is one.
  std::optional<std::pair<int, std::string>> Victim(
      int priority, const std::string& caller) const;
  // Adds to `late` at most `most` of the callers' tasks, see Late. False:
  // others came before `time` and are kept.
  static bool AddLate(const Class& callers, absl::Time time, size_t most,
                      std::vector<std::shared_ptr<Task>>* late);
  Waiting Erase(int rank, const std::string& caller, size_t index);
  // Count a task of the caller as waiting, and no longer.
  void Join(const std::string& caller);
  void Leave(const std::string& caller);
  void ForgetAccounts();
  // The caller's counter; the floor, if it is not kept.
  double Served(const std::string& caller) const;

  struct Account {
    double served = 0;
    int waiting = 0;
  };

  const int limit_;
  Classes classes_;
  int size_ = 0;
  int fresh_ = 0;  // of them, those that were not started
  int64_t arrivals_ = 0;
  int overtaken_ = 0;  // starts of the highest rank while others waited
  std::map<std::string, Account> accounts_;
  double floor_ = 0;  // the least of callers who waited when the last one came
  std::string last_;  // who had the last turn
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_FAIR_QUEUE_H_
