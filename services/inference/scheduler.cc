#include "services/inference/scheduler.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/cpu/kv_cache.h"
#include "services/common/error_info.h"

namespace onegrid::inference {
namespace {

// How old Load::idle_prefix_bytes may be.
constexpr absl::Duration kIdleBytesAge = absl::Milliseconds(100);

// What a token of output weighs against one of a prompt in a caller's account.
constexpr double kOutputWeight = 2;

absl::Status QueueFull(int max_queue) {
  return common::MakeError(
      absl::StatusCode::kResourceExhausted, "QUEUE_FULL",
      absl::StrCat("the queue holds its limit of ", max_queue, " requests"),
      {{"max_queue", absl::StrCat(max_queue)}});
}

// Tokens that a task has, and a page more, so that it is not put back at once.
int64_t Grown(const Task& task) {
  return std::min<int64_t>(
      static_cast<int64_t>(task.tokens().size()) + cpu::kPageTokens,
      task.most_tokens());
}

absl::Status Draining(const char* message) {
  return common::MakeError(absl::StatusCode::kUnavailable, "SERVER_DRAINING",
                           message);
}

absl::Status TooLong(const Engine& engine, const KvRoom& room, int tokens) {
  const int64_t bytes = engine.sequence_bytes_max(tokens);
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "KV_BUDGET_EXCEEDED",
      absl::StrCat("prompt and output may take ", tokens, " tokens and ", bytes,
                   " bytes of keys and values; the server has ", room.limit(),
                   " bytes, which is ", room.most_tokens(), " tokens"),
      {{"tokens", absl::StrCat(tokens)},
       {"kv_bytes", absl::StrCat(bytes)},
       {"kv_bytes_limit", absl::StrCat(room.limit())},
       {"max_tokens", absl::StrCat(room.most_tokens())}});
}

bool Before(const Running& a, const Running& b) {
  if (a.entry.rank != b.entry.rank) return a.entry.rank > b.entry.rank;
  return a.entry.started < b.entry.started;
}

}  // namespace

Scheduler::Scheduler(Engine& engine, kernels::ThreadPool& pool,
                     const SchedulerOptions& options)
    : engine_(engine),
      options_(options),
      room_(engine, options.kv_limit),
      step_(engine, pool, options.step),
      queue_(options.max_queue) {
  for (int slot = engine.options().max_sequences - 1; slot >= 0; --slot) {
    free_slots_.push_back(slot);
  }
  thread_ = std::thread([this] { Loop(); });
}

Scheduler::~Scheduler() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

absl::Status Scheduler::Submit(std::shared_ptr<Task> task) {
  if (!room_.FitsAlone(task->most_tokens())) {
    return TooLong(engine_, room_, task->most_tokens());
  }
  absl::MutexLock lock(&mu_);
  if (stopping_) return Draining("the server is stopping");
  if (draining_) return Draining("the server takes no more requests");
  std::optional<std::shared_ptr<Task>> displaced;
  if (!queue_.Push(std::move(task), &displaced)) {
    return QueueFull(options_.max_queue);
  }
  // Its calls are all made by the scheduler's thread.
  if (displaced.has_value()) displaced_.push_back(*std::move(displaced));
  return absl::OkStatus();
}

void Scheduler::Drain() {
  absl::MutexLock lock(&mu_);
  draining_ = true;
}

Scheduler::Load Scheduler::load() const {
  absl::MutexLock lock(&mu_);
  Load load = load_;
  load.queued = queue_.size();
  return load;
}

void Scheduler::Publish() {
  load_.kv_bytes = engine_.kv_cache().bytes();
  load_.prefix_bytes = engine_.kv_cache().prefix_bytes();
  load_.drafts = step_.drafts();
  // To count them takes a look at each page.
  const absl::Time now = absl::Now();
  if (load_.running > 0 && now - idle_bytes_time_ < kIdleBytesAge) return;
  idle_bytes_time_ = now;
  load_.idle_prefix_bytes = engine_.kv_cache().idle_prefix_bytes();
}

void Scheduler::Loop() {
  while (WaitForWork()) {
    EndDisplaced();
    DropInterrupted();
    StartQueued();
    DropLate();
    if (running_.empty()) continue;
    MakeRoom();
    const absl::Status status = step_.Run(running_, room_);
    if (!status.ok()) {
      // What the tasks hold was validated on arrival, so this concerns the
      // engine as a whole: nothing that runs can go on.
      for (auto& running : running_) End(*running, status);
      running_.clear();
      continue;
    }
    FinishStep();
  }
  const absl::Status stopped = Draining("the server stopped");
  for (auto& running : running_) End(*running, stopped);
  EndDisplaced();
  std::vector<std::shared_ptr<Task>> waiting;
  {
    absl::MutexLock lock(&mu_);
    waiting = queue_.tasks();
  }
  for (const auto& task : waiting) task->OnEnd(stopped);
}

bool Scheduler::WaitForWork() {
  absl::MutexLock lock(&mu_);
  if (running_.empty()) {
    mu_.Await(absl::Condition(
        +[](Scheduler* s) ABSL_EXCLUSIVE_LOCKS_REQUIRED(s->mu_) {
          return s->stopping_ || s->queue_.size() > 0 || !s->displaced_.empty();
        },
        this));
  }
  return !stopping_;
}

void Scheduler::EndDisplaced() {
  std::vector<std::shared_ptr<Task>> displaced;
  {
    absl::MutexLock lock(&mu_);
    displaced.swap(displaced_);
  }
  for (const auto& task : displaced) task->OnEnd(QueueFull(options_.max_queue));
}

void Scheduler::DropInterrupted() {
  for (auto& running : running_) {
    const absl::Status status = running->task().Interrupted();
    if (status.ok()) continue;
    End(*running, status);
    running.reset();
  }
  running_.erase(std::remove(running_.begin(), running_.end(), nullptr),
                 running_.end());
  std::vector<std::shared_ptr<Task>> waiting;
  {
    absl::MutexLock lock(&mu_);
    waiting = queue_.tasks();
  }
  for (const std::shared_ptr<Task>& task : waiting) {
    const absl::Status status = task->Interrupted();
    if (status.ok()) continue;
    bool removed = false;
    {
      absl::MutexLock lock(&mu_);
      removed = queue_.Remove(task.get());
    }
    // Else another task has its place by now, see EndDisplaced.
    if (removed) task->OnEnd(status);
  }
}

void Scheduler::DropLate() {
  if (options_.max_queue_delay == absl::InfiniteDuration()) return;
  std::vector<std::shared_ptr<Task>> late;
  {
    absl::MutexLock lock(&mu_);
    late = queue_.Late(absl::Now() - options_.max_queue_delay,
                       options_.calm_queue);
    for (const auto& task : late) queue_.Remove(task.get());
  }
  for (const auto& task : late) {
    task->OnEnd(common::MakeError(
        absl::StatusCode::kResourceExhausted, "QUEUE_FULL",
        absl::StrCat("the request waited for ",
                     absl::FormatDuration(options_.max_queue_delay),
                     " while more than ", options_.calm_queue, " waited")));
  }
}

void Scheduler::StartQueued() {
  while (true) {
    std::optional<Waiting> next;
    {
      absl::MutexLock lock(&mu_);
      next = queue_.Next();
    }
    if (!next.has_value() || IsBeingFilled(*next)) return;
    if (!CanPlace(*next)) return;
    std::unique_ptr<Running> running = Place(*next);
    if (running == nullptr) return;
    const bool first = next->fresh();
    {
      absl::MutexLock lock(&mu_);
      if (!queue_.Take(*next)) {
        // Another task took its place.
        engine_.Reset(running->slot);
        free_slots_.push_back(running->slot);
        continue;
      }
      ++load_.running;
      const auto tokens = static_cast<int64_t>(running->charged);
      if (first) {
        load_.prefix_tokens_asked += tokens;
        load_.prefix_tokens_restored += running->fed;
        if (running->fed > 0) idle_bytes_time_ = absl::InfinitePast();
        queue_.Charge(next->task->place().caller,
                      static_cast<double>(tokens - running->fed));
      }
      Publish();
    }
    if (first) running->entry.started = starts_++;
    const int restored = running->fed;
    running_.insert(std::upper_bound(running_.begin(), running_.end(), running,
                                     [](const auto& a, const auto& b) {
                                       return Before(*a, *b);
                                     }),
                    std::move(running));
    if (first) next->task->OnStart(restored);
  }
}

bool Scheduler::CanPlace(const Waiting& next) const {
  std::vector<KvRoom::Growth> growths = {{KvRoom::kNoSlot, Grown(*next.task)}};
  std::vector<int> freed;
  for (const auto& running : running_) {
    if (running->entry.rank < next.rank) {
      freed.push_back(running->slot);
    } else {
      growths.push_back({running->slot, Grown(running->task())});
    }
  }
  if (growths.size() > static_cast<size_t>(engine_.options().max_sequences)) {
    return false;
  }
  // Alone it fits, or Submit would have refused it.
  return growths.size() == 1 || room_.Fits(growths, freed);
}

std::unique_ptr<Running> Scheduler::Place(const Waiting& next) {
  while (free_slots_.empty()) {
    if (!PreemptBelow(next.rank)) return nullptr;
  }
  auto running = std::make_unique<Running>();
  running->entry = next;
  running->slot = free_slots_.back();
  free_slots_.pop_back();
  const absl::Span<const int32_t> tokens = next.task->tokens();
  running->charged = tokens.size();
  // The tokens whose logits are wanted have to run.
  const auto without_output =
      static_cast<size_t>(std::max(0, next.task->first_output()));
  running->fed = engine_.Restore(
      running->slot, tokens.first(std::min(tokens.size(), without_output)),
      next.task->place().cache_salt, /*with_tail=*/room_.HasBlock());
  // Alone it fits, or Submit would have refused it.
  while (!running_.empty() && !Fits(*running)) {
    if (!PreemptBelow(next.rank)) {
      engine_.Reset(running->slot);
      free_slots_.push_back(running->slot);
      return nullptr;
    }
  }
  return running;
}

bool Scheduler::Fits(const Running& next) const {
  std::vector<KvRoom::Growth> growths = {{next.slot, Grown(next.task())}};
  for (const auto& running : running_) {
    growths.push_back({running->slot, Grown(running->task())});
  }
  return room_.Fits(growths);
}

bool Scheduler::IsBeingFilled(const Waiting& next) const {
  if (engine_.options().prefix_bytes == 0) return false;
  const Task& task = *next.task;
  const absl::Span<const int32_t> tokens = task.tokens().first(
      std::min(task.tokens().size(),
               static_cast<size_t>(std::max(0, task.first_output()))));
  const bool with_tail = room_.HasBlock();
  int64_t most = 0;  // tokens of the task that others are about to fill
  for (const auto& running : running_) {
    // One of lower rank may itself wait for what this one would do.
    if (running->starved || running->generating() ||
        running->entry.rank < next.rank ||
        running->task().place().cache_salt != task.place().cache_salt) {
      continue;
    }
    const absl::Span<const int32_t> filled = running->task().tokens();
    const int64_t common = std::mismatch(tokens.begin(), tokens.end(),
                                         filled.begin(), filled.end())
                               .first -
                           tokens.begin();
    int64_t pages = common / cpu::kPageTokens;
    int64_t shared = pages * cpu::kPageTokens;
    // Of the next one a copy will do, if its prompt fills it.
    if (with_tail && common - shared >= PrefixCache::kLeastTail &&
        static_cast<int64_t>(filled.size()) / cpu::kPageTokens > pages) {
      ++pages;
      shared = common;
    }
    if (pages > running->fed / cpu::kPageTokens) most = std::max(most, shared);
  }
  return most > 0 && most > engine_.kv_cache().CountKept(
                                tokens, task.place().cache_salt, with_tail);
}

bool Scheduler::PreemptBelow(int rank) {
  if (running_.empty() || running_.back()->entry.rank >= rank) return false;
  PreemptLast();
  return true;
}

void Scheduler::PreemptLast() {
  const std::unique_ptr<Running> last = std::move(running_.back());
  running_.pop_back();
  engine_.Reset(last->slot);
  free_slots_.push_back(last->slot);
  last->task().OnPreempted();
  absl::MutexLock lock(&mu_);
  --load_.running;
  ++load_.preemptions;
  queue_.PutBack(last->entry);
  Publish();
}

void Scheduler::MakeRoom() {
  room_.BeginStep();
  // Prompts get what the tasks that generate leave of a step.
  const auto generating = static_cast<int>(absl::c_count_if(
      running_, [](const auto& r) { return r->generating(); }));
  int prompt_tokens =
      StepTokens(generating, options_.step, engine_) - generating;
  int outputs = options_.step.max_step_outputs;
  for (size_t i = 0; i < running_.size(); ++i) {
    Running& running = *running_[i];
    running.has_room = running.starved = false;
    if (!running.generating()) {
      if (prompt_tokens <= 0) continue;
      const PromptShare share = ShareOf(running, prompt_tokens, outputs);
      if (share.tokens == 0) continue;
      prompt_tokens -= share.tokens;
      outputs -= share.outputs;
    }
    while (true) {
      running.has_room = room_.Take(running.slot, 1) == 1;
      running.starved = !running.has_room;
      if (running.has_room || i + 1 == running_.size()) break;
      PreemptLast();
    }
  }
}

void Scheduler::FinishStep() {
  for (Running* running : step_.stepped()) {
    if (!running->task().OnStepDone()) {
      step_.Settle(*running);
      continue;
    }
    // Guesses of the last step may be wrong.
    step_.TakeBackGuesses(*running);
    engine_.Share(running->slot, running->task().tokens());
    End(*running, absl::OkStatus());
    running_.erase(std::find_if(
        running_.begin(), running_.end(),
        [&](const auto& candidate) { return candidate.get() == running; }));
  }
  for (const auto& running : running_) {
    engine_.Share(running->slot, running->task().tokens());
  }
  absl::MutexLock lock(&mu_);
  for (const auto& running : running_) ChargeOutput(*running);
  Publish();
}

void Scheduler::ChargeOutput(Running& running) {
  const size_t tokens = running.task().tokens().size();
  queue_.Charge(running.task().place().caller,
                kOutputWeight * static_cast<double>(tokens - running.charged));
  running.charged = tokens;
}

void Scheduler::End(Running& running, const absl::Status& status) {
  engine_.Reset(running.slot);
  free_slots_.push_back(running.slot);
  {
    absl::MutexLock lock(&mu_);
    --load_.running;
    ChargeOutput(running);
    Publish();
  }
  running.task().OnEnd(status);
}

}  // namespace onegrid::inference
