#include "services/inference/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/common/error_info.h"

namespace onegrid::inference {

Scheduler::Scheduler(Engine& engine, kernels::ThreadPool& pool,
                     const SchedulerOptions& options)
    : engine_(engine),
      pool_(pool),
      options_(options),
      max_draft_(std::min(options.max_draft, engine.options().max_rollback)) {
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
  absl::MutexLock lock(&mu_);
  if (stopping_) {
    return common::MakeError(absl::StatusCode::kUnavailable, "SERVER_DRAINING",
                             "the server is stopping");
  }
  if (static_cast<int>(queue_.size()) >= options_.max_queue) {
    return common::MakeError(absl::StatusCode::kResourceExhausted, "QUEUE_FULL",
                             absl::StrCat("the queue holds its limit of ",
                                          options_.max_queue, " requests"),
                             {{"max_queue", absl::StrCat(options_.max_queue)}});
  }
  queue_.push_back(std::move(task));
  return absl::OkStatus();
}

Scheduler::Load Scheduler::load() const {
  absl::MutexLock lock(&mu_);
  return {running_count_, static_cast<int>(queue_.size())};
}

Scheduler::DraftCount Scheduler::drafts() const {
  absl::MutexLock lock(&mu_);
  return drafts_;
}

Scheduler::PrefixCount Scheduler::prefixes() const {
  absl::MutexLock lock(&mu_);
  return prefixes_;
}

void Scheduler::Loop() {
  while (WaitForWork()) {
    DropInterrupted();
    StartQueued();
    const std::vector<Chunk> chunks = PlanStep();
    if (chunks.empty()) continue;
    const absl::Time start = absl::Now();
    const absl::Status status = engine_.Forward(chunks);
    if (!status.ok()) {
      // What the tasks hold was validated on arrival, so this concerns the
      // engine as a whole: nothing that runs can go on.
      for (auto& running : running_) End(*running, status);
      running_.clear();
      continue;
    }
    DeliverLogits();
    if (!step_has_prompt_) {
      step_cost_.Add(static_cast<int>(outputs_.size()),
                     absl::ToDoubleSeconds(absl::Now() - start));
    }
    FinishStep();
  }
  const absl::Status stopped = common::MakeError(
      absl::StatusCode::kUnavailable, "SERVER_DRAINING", "the server stopped");
  for (auto& running : running_) End(*running, stopped);
  std::deque<std::shared_ptr<Task>> waiting;
  {
    absl::MutexLock lock(&mu_);
    waiting.swap(queue_);
  }
  for (const auto& task : waiting) task->OnEnd(stopped);
}

bool Scheduler::WaitForWork() {
  absl::MutexLock lock(&mu_);
  if (running_.empty()) {
    mu_.Await(absl::Condition(
        +[](Scheduler* s) ABSL_EXCLUSIVE_LOCKS_REQUIRED(s->mu_) {
          return s->stopping_ || !s->queue_.empty();
        },
        this));
  }
  return !stopping_;
}

void Scheduler::DropInterrupted() {
  for (auto& running : running_) {
    const absl::Status status = running->task->Interrupted();
    if (status.ok()) continue;
    End(*running, status);
    running.reset();
  }
  running_.erase(std::remove(running_.begin(), running_.end(), nullptr),
                 running_.end());
  // Only this thread takes tasks off the queue, so those of the copy stay.
  std::vector<std::shared_ptr<Task>> waiting;
  {
    absl::MutexLock lock(&mu_);
    waiting.assign(queue_.begin(), queue_.end());
  }
  for (const std::shared_ptr<Task>& task : waiting) {
    const absl::Status status = task->Interrupted();
    if (status.ok()) continue;
    {
      absl::MutexLock lock(&mu_);
      queue_.erase(std::find(queue_.begin(), queue_.end(), task));
    }
    task->OnEnd(status);
  }
}

void Scheduler::StartQueued() {
  while (!free_slots_.empty()) {
    std::shared_ptr<Task> task;
    {
      absl::MutexLock lock(&mu_);
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
      ++running_count_;
    }
    auto running = std::make_unique<Running>();
    running->task = std::move(task);
    Begin(*running);
    running_.push_back(std::move(running));
  }
}

void Scheduler::Begin(Running& running) {
  running.slot = free_slots_.back();
  free_slots_.pop_back();
  const absl::Span<const int32_t> tokens = running.task->tokens();
  // The tokens whose logits are wanted have to run.
  const auto without_output =
      static_cast<size_t>(std::max(0, running.task->first_output()));
  if (running.task->adapter() == nullptr) {
    running.fed =
        engine_.Restore(running.slot, tokens.subspan(0, without_output));
  }
  {
    absl::MutexLock lock(&mu_);
    prefixes_.asked += static_cast<int64_t>(tokens.size());
    prefixes_.restored += running.fed;
  }
  running.task->OnStart(running.fed);
}

void Scheduler::AddChunk(Running& running, int count,
                         std::vector<Chunk>* chunks) {
  const absl::Span<const int32_t> tokens = running.task->tokens();
  const int begin = running.fed;
  const int end = begin + count;
  const int first_output = std::clamp(running.task->first_output(), begin, end);
  chunks->push_back(
      {running.slot, tokens.subspan(begin, count), first_output - begin,
       running.task->adapter()});
  for (int i = first_output; i < end; ++i) outputs_.push_back({&running, i});
  running.fed = end;
}

int Scheduler::AddGenerating(Running& running, int rows, int room,
                             std::vector<Chunk>* chunks) {
  AddChunk(running, 1, chunks);
  if (options_.drafting == Drafting::kOff || room <= 1) return 1;
  const int most = std::min(max_draft_, room - 1);
  std::vector<int32_t> draft = running.task->Draft(most);
  const auto available = static_cast<int>(draft.size());
  const int count = options_.drafting == Drafting::kAlways
                        ? available
                        : running.record.Choose(available, rows, step_cost_);
  if (count == 0) return 1;
  draft.resize(static_cast<size_t>(count));
  const int last = running.fed - 1;
  running.drafted_chunk = {running.task->tokens()[static_cast<size_t>(last)]};
  running.drafted_chunk.insert(running.drafted_chunk.end(), draft.begin(),
                               draft.end());
  chunks->back().tokens = running.drafted_chunk;
  for (int i = 1; i <= count; ++i) outputs_.push_back({&running, last + i});
  running.fed += count;
  running.draft = std::move(draft);
  running.rejected = false;
  return 1 + count;
}

std::vector<Chunk> Scheduler::PlanStep() {
  outputs_.clear();
  step_has_prompt_ = false;
  std::vector<Chunk> chunks;
  int budget = engine_.options().max_step_tokens;
  const auto pending = [](const Running& running) {
    return static_cast<int>(running.task->tokens().size()) - running.fed;
  };
  const auto generating = [&](const Running& running) {
    return running.fed > 0 && pending(running) == 1;
  };
  // Every sequence has a token before any has a guess.
  int waiting = static_cast<int>(
      std::count_if(running_.begin(), running_.end(),
                    [&](const auto& running) { return generating(*running); }));
  int rows = waiting;
  for (auto& running : running_) {
    if (!generating(*running) || budget == 0) continue;
    --waiting;
    const int added = AddGenerating(*running, rows, budget - waiting, &chunks);
    budget -= added;
    rows += added - 1;
  }
  int outputs_left = options_.max_step_outputs;
  for (auto& running : running_) {
    // With guesses it was fed more than it has.
    int count = std::min(std::max(0, pending(*running)), budget);
    // Rows before first_output cost no logits.
    const int free_rows =
        std::max(0, running->task->first_output() - running->fed);
    count = std::min(count, free_rows + outputs_left);
    if (count == 0) continue;
    outputs_left -= std::max(0, count - free_rows);
    budget -= count;
    step_has_prompt_ = true;
    AddChunk(*running, count, &chunks);
  }
  return chunks;
}

void Scheduler::DeliverRow(const Output& output, absl::Span<float> logits) {
  Running& running = *output.running;
  if (running.rejected) return;
  running.task->OnLogits(output.index, logits);
  if (running.draft.empty()) return;
  const absl::Span<const int32_t> tokens = running.task->tokens();
  const size_t next = static_cast<size_t>(output.index) + 1;
  const size_t place = running.draft.size() -
                       static_cast<size_t>(running.fed - 1 - output.index);
  running.rejected =
      next >= tokens.size() ||
      (place < running.draft.size() && tokens[next] != running.draft[place]);
}

void Scheduler::DeliverLogits() {
  const int rows = static_cast<int>(outputs_.size());
  for (int first = 0; first < rows; first += Engine::kMaxLogitRows) {
    const int count = std::min(Engine::kMaxLogitRows, rows - first);
    const absl::Span<float> logits = engine_.Logits(first, count);
    const size_t vocab = logits.size() / count;
    // Rows of a sequence with guesses run in order, all others as they come.
    std::vector<int> begins;
    for (int i = 0; i < count; ++i) {
      const Running* running = outputs_[first + i].running;
      const bool follows = i > 0 && !running->draft.empty() &&
                           outputs_[first + i - 1].running == running;
      if (!follows) begins.push_back(i);
    }
    const auto parts = static_cast<int64_t>(begins.size());
    begins.push_back(count);
    pool_.ParallelFor(parts, 1, [&](int64_t begin, int64_t end, int) {
      for (int i = begins[begin]; i < begins[end]; ++i) {
        DeliverRow(outputs_[first + i], logits.subspan(i * vocab, vocab));
      }
    });
  }
}

void Scheduler::SettleDraft(Running& running) {
  if (running.draft.empty()) return;
  const auto tried = static_cast<int>(running.draft.size());
  const auto tokens = static_cast<int>(running.task->tokens().size());
  // What the step began with, then one token for each guess that was right and
  // one of the model's own, which runs in the next step.
  const int accepted = std::min(tried, tokens - (running.fed - tried) - 1);
  running.record.Add(tried, accepted);
  {
    absl::MutexLock lock(&mu_);
    drafts_.tried += tried;
    drafts_.accepted += accepted;
  }
  if (tokens - 1 < running.fed) {
    engine_.Truncate(running.slot, tokens - 1);
    running.fed = tokens - 1;
  }
  running.draft.clear();
  running.rejected = false;
}

void Scheduler::FinishStep() {
  std::vector<Running*> stepped;
  for (const Output& output : outputs_) {
    if (stepped.empty() || stepped.back() != output.running) {
      stepped.push_back(output.running);
    }
  }
  for (Running* running : stepped) {
    if (!running->task->OnStepDone()) {
      SettleDraft(*running);
      continue;
    }
    // Guesses of the last step may be wrong.
    if (!running->draft.empty()) {
      engine_.Truncate(running->slot,
                       running->fed - static_cast<int>(running->draft.size()));
    }
    Share(*running);
    End(*running, absl::OkStatus());
    running_.erase(std::find_if(
        running_.begin(), running_.end(),
        [&](const auto& candidate) { return candidate.get() == running; }));
  }
  for (const auto& running : running_) {
    Share(*running);
  }
}

void Scheduler::Share(const Running& running) {
  if (running.task->adapter() != nullptr) return;
  engine_.Share(running.slot, running.task->tokens());
}

void Scheduler::End(Running& running, const absl::Status& status) {
  engine_.Reset(running.slot);
  free_slots_.push_back(running.slot);
  {
    absl::MutexLock lock(&mu_);
    --running_count_;
  }
  running.task->OnEnd(status);
}

}  // namespace onegrid::inference
