#include "services/inference/fair_queue.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "kernels/base/check.h"

namespace onegrid::inference {
namespace {

int FreshTasks(const std::deque<Waiting>& line) {
  return static_cast<int>(
      std::count_if(line.begin(), line.end(),
                    [](const Waiting& waiting) { return waiting.fresh(); }));
}

}  // namespace

std::optional<std::pair<int, std::string>> FairQueue::Victim(
    int priority, const std::string& caller) const {
  // The lowest rank of which tasks were not started.
  for (auto rank = classes_.rbegin(); rank != classes_.rend(); ++rank) {
    if (rank->first > priority) return std::nullopt;
    const std::string* most = nullptr;
    int most_tasks = 0;
    for (const auto& [name, line] : rank->second) {
      const int tasks = FreshTasks(line);
      if (tasks <= most_tasks) continue;
      most = &name;
      most_tasks = tasks;
    }
    if (most == nullptr) continue;
    if (rank->first == priority) {
      const auto own = rank->second.find(caller);
      const int own_tasks =
          own == rank->second.end() ? 0 : FreshTasks(own->second);
      if (own_tasks + 2 > most_tasks) return std::nullopt;
    }
    return std::make_pair(rank->first, *most);
  }
  return std::nullopt;
}

bool FairQueue::Push(std::shared_ptr<Task> task,
                     std::optional<std::shared_ptr<Task>>* displaced,
                     absl::Time now) {
  const TaskPlace& place = task->place();
  if (fresh_ >= limit_) {
    const auto victim = Victim(place.priority, place.caller);
    if (!victim.has_value()) return false;
    const Line& line = classes_.at(victim->first).at(victim->second);
    // Tasks that were started stand at the head.
    *displaced = Erase(victim->first, victim->second, line.size() - 1).task;
  }
  Join(place.caller);
  classes_[place.priority][place.caller].push_back(
      {std::move(task), place.priority, arrivals_++, -1, now});
  ++size_;
  ++fresh_;
  return true;
}

void FairQueue::PutBack(Waiting waiting) {
  KERNELS_CHECK(!waiting.fresh());
  const std::string& caller = waiting.task->place().caller;
  Join(caller);
  classes_[waiting.rank][caller].push_front(std::move(waiting));
  ++size_;
}

FairQueue::Pick FairQueue::Choose() const {
  const auto highest = classes_.begin();
  if (overtaken_ >= kTurn - 1 && classes_.size() > 1) {
    Pick pick = {std::next(highest), {}, true};
    int64_t earliest = arrivals_;
    for (auto rank = pick.rank; rank != classes_.end(); ++rank) {
      for (auto line = rank->second.begin(); line != rank->second.end();
           ++line) {
        if (line->second.front().arrival >= earliest) continue;
        earliest = line->second.front().arrival;
        pick.rank = rank;
        pick.caller = line;
      }
    }
    return pick;
  }
  const Class& callers = highest->second;
  return {highest,
          std::min_element(callers.begin(), callers.end(),
                           [this](const auto& a, const auto& b) {
                             const double x = Served(a.first);
                             const double y = Served(b.first);
                             return x < y ||
                                    (x == y && a.second.front().arrival <
                                                   b.second.front().arrival);
                           }),
          false};
}

std::optional<Waiting> FairQueue::Next() const {
  if (classes_.empty()) return std::nullopt;
  const Pick pick = Choose();
  Waiting next = pick.caller->second.front();
  if (pick.by_turn) next.rank = classes_.begin()->first;
  return next;
}

bool FairQueue::Take(const Waiting& next) {
  for (const auto& [rank, callers] : classes_) {
    for (const auto& [caller, line] : callers) {
      const auto place = std::find_if(
          line.begin(), line.end(),
          [&](const Waiting& waiting) { return waiting.task == next.task; });
      if (place == line.end()) continue;
      if (rank < next.rank) {
        overtaken_ = 0;
      } else if (classes_.size() > 1) {
        ++overtaken_;
      }
      last_ = caller;
      Erase(rank, std::string(caller),
            static_cast<size_t>(place - line.begin()));
      return true;
    }
  }
  return false;
}

bool FairQueue::Remove(const Task* task) {
  for (const auto& [rank, callers] : classes_) {
    for (const auto& [caller, line] : callers) {
      const auto found = std::find_if(
          line.begin(), line.end(),
          [&](const Waiting& waiting) { return waiting.task.get() == task; });
      if (found == line.end()) continue;
      Erase(rank, std::string(caller),
            static_cast<size_t>(found - line.begin()));
      return true;
    }
  }
  return false;
}

Waiting FairQueue::Erase(int rank, const std::string& caller, size_t index) {
  const auto callers = classes_.find(rank);
  const auto line = callers->second.find(caller);
  const auto place = line->second.begin() + static_cast<int64_t>(index);
  Waiting waiting = std::move(*place);
  line->second.erase(place);
  if (line->second.empty()) callers->second.erase(line);
  if (callers->second.empty()) classes_.erase(callers);
  --size_;
  if (waiting.fresh()) --fresh_;
  Leave(waiting.task->place().caller);
  return waiting;
}

double FairQueue::Served(const std::string& caller) const {
  const auto account = accounts_.find(caller);
  return account == accounts_.end() ? floor_ : account->second.served;
}

void FairQueue::Join(const std::string& caller) {
  Account& account =
      accounts_.try_emplace(caller, Account{floor_}).first->second;
  if (account.waiting++ > 0) return;
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [name, other] : accounts_) {
    if (other.waiting > 0 && name != caller) {
      least = std::min(least, other.served);
    }
  }
  // If nobody waits, the last one who did tells how far the others are.
  if (std::isinf(least)) least = Served(last_);
  floor_ = std::max(floor_, least);
  account.served = std::max(account.served, floor_);
  ForgetAccounts();
}

void FairQueue::Leave(const std::string& caller) {
  --accounts_.at(caller).waiting;
}

void FairQueue::ForgetAccounts() {
  const bool many = accounts_.size() > kMostAccounts;
  for (auto account = accounts_.begin(); account != accounts_.end();) {
    const bool idle = account->second.waiting == 0;
    if (idle && (many || account->second.served <= floor_)) {
      account = accounts_.erase(account);
    } else {
      ++account;
    }
  }
}

void FairQueue::Charge(const std::string& caller, double tokens) {
  accounts_.try_emplace(caller, Account{floor_}).first->second.served += tokens;
}

bool FairQueue::AddLate(const Class& callers, absl::Time time, size_t most,
                        std::vector<std::shared_ptr<Task>>* late) {
  struct Caller {
    int fresh;
    std::vector<const Waiting*> late;  // the first one last
  };
  std::vector<Caller> all;
  for (const auto& [name, line] : callers) {
    Caller& caller = all.emplace_back(Caller{FreshTasks(line), {}});
    for (auto waiting = line.rbegin(); waiting != line.rend(); ++waiting) {
      if (waiting->fresh() && waiting->since < time) {
        caller.late.push_back(&*waiting);
      }
    }
  }
  const auto fewer = [](const Caller& a, const Caller& b) {
    return a.fresh < b.fresh;
  };
  const size_t end = late->size() + most;
  while (true) {
    const int largest = std::max_element(all.begin(), all.end(), fewer)->fresh;
    Caller* next = nullptr;
    bool any = false;
    for (Caller& caller : all) {
      if (caller.late.empty()) continue;
      any = true;
      if (caller.fresh + 1 < largest) continue;
      if (next == nullptr || next->fresh < caller.fresh ||
          (next->fresh == caller.fresh &&
           caller.late.back()->arrival < next->late.back()->arrival)) {
        next = &caller;
      }
    }
    if (next == nullptr || late->size() == end) return !any;
    late->push_back(next->late.back()->task);
    next->late.pop_back();
    --next->fresh;
  }
}

std::vector<std::shared_ptr<Task>> FairQueue::Late(absl::Time time,
                                                   int keep) const {
  std::vector<std::shared_ptr<Task>> late;
  if (fresh_ <= keep) return late;
  const auto most = static_cast<size_t>(fresh_ - keep);
  for (auto rank = classes_.rbegin(); rank != classes_.rend(); ++rank) {
    if (!AddLate(rank->second, time, most - late.size(), &late)) break;
  }
  return late;
}

std::vector<std::shared_ptr<Task>> FairQueue::tasks() const {
  std::vector<std::shared_ptr<Task>> tasks;
  for (const auto& [rank, callers] : classes_) {
    for (const auto& [caller, line] : callers) {
      for (const Waiting& waiting : line) tasks.push_back(waiting.task);
    }
  }
  return tasks;
}

}  // namespace onegrid::inference
