#include "services/inference/step_runner.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "kernels/base/check.h"

namespace onegrid::inference {

StepRunner::StepRunner(Engine& engine, kernels::ThreadPool& pool,
                       const StepOptions& options)
    : engine_(engine),
      pool_(pool),
      options_(options),
      max_draft_(std::min(options.max_draft, engine.options().max_rollback)) {}

absl::Status StepRunner::Run(const RunningTasks& tasks, KvRoom& room) {
  const std::vector<Chunk> chunks = Plan(tasks, room);
  KERNELS_CHECK(!chunks.empty());
  const absl::Time start = absl::Now();
  const absl::Status status = engine_.Forward(chunks);
  if (!status.ok()) return status;
  DeliverLogits();
  if (!has_prompt_) {
    cost_.Add(static_cast<int>(outputs_.size()),
              absl::ToDoubleSeconds(absl::Now() - start));
  }
  return absl::OkStatus();
}

void StepRunner::AddChunk(Running& running, int count,
                          std::vector<Chunk>* chunks) {
  const absl::Span<const int32_t> tokens = running.task().tokens();
  const int begin = running.fed;
  const int end = begin + count;
  const int first_output =
      std::clamp(running.task().first_output(), begin, end);
  chunks->push_back({running.slot, tokens.subspan(begin, count),
                     first_output - begin, running.task().adapter()});
  for (int i = first_output; i < end; ++i) outputs_.push_back({&running, i});
  running.fed = end;
}

int StepRunner::AddGenerating(Running& running, int rows, int most,
                              KvRoom& room, std::vector<Chunk>* chunks) {
  AddChunk(running, 1, chunks);
  if (options_.drafting == Drafting::kOff || most <= 1) return 1;
  std::vector<int32_t> draft =
      running.task().Draft(std::min(max_draft_, most - 1));
  const auto available = static_cast<int>(draft.size());
  int count = options_.drafting == Drafting::kAlways
                  ? available
                  : running.record.Choose(available, rows, cost_);
  if (count > 0) count = room.Take(running.slot, 1 + count) - 1;
  if (count == 0) return 1;
  draft.resize(static_cast<size_t>(count));
  const int last = running.fed - 1;
  running.drafted_chunk = {running.task().tokens()[static_cast<size_t>(last)]};
  running.drafted_chunk.insert(running.drafted_chunk.end(), draft.begin(),
                               draft.end());
  chunks->back().tokens = running.drafted_chunk;
  for (int i = 1; i <= count; ++i) outputs_.push_back({&running, last + i});
  running.fed += count;
  running.draft = std::move(draft);
  running.rejected = false;
  return 1 + count;
}

int StepTokens(int generating, const StepOptions& options,
               const Engine& engine) {
  const EngineOptions& limits = engine.options();
  if (generating == 0) return limits.max_step_tokens;
  // Each of them has a token.
  return std::min(limits.max_step_tokens,
                  std::max(options.max_shared_tokens, limits.max_sequences));
}

PromptShare ShareOf(const Running& running, int tokens, int outputs) {
  // Rows before first_output cost no logits.
  const int free_rows =
      std::max(0, running.task().first_output() - running.fed);
  const int count = std::min({running.pending(), tokens, free_rows + outputs});
  return {count, std::max(0, count - free_rows)};
}

std::vector<Chunk> StepRunner::Plan(const RunningTasks& tasks, KvRoom& room) {
  outputs_.clear();
  has_prompt_ = false;
  std::vector<Chunk> chunks;
  const auto generates = [](const std::unique_ptr<Running>& running) {
    return running->has_room && running->generating();
  };
  // Every sequence has a token before any has a guess.
  int waiting =
      static_cast<int>(std::count_if(tasks.begin(), tasks.end(), generates));
  int budget = StepTokens(waiting, options_, engine_);
  int rows = waiting;
  std::vector<Running*> prompts;
  for (const auto& running : tasks) {
    if (!generates(running)) {
      if (running->has_room) prompts.push_back(running.get());
      continue;
    }
    --waiting;
    const int added =
        AddGenerating(*running, rows, budget - waiting, room, &chunks);
    budget -= added;
    rows += added - 1;
  }
  int outputs_left = options_.max_step_outputs;
  for (Running* running : prompts) {
    int count = ShareOf(*running, budget, outputs_left).tokens;
    if (count > 0) count = room.Take(running->slot, count);
    if (count == 0) continue;
    outputs_left -= ShareOf(*running, count, outputs_left).outputs;
    budget -= count;
    has_prompt_ = true;
    AddChunk(*running, count, &chunks);
  }
  return chunks;
}

template <typename Give>
void StepRunner::DeliverRow(const Output& output, const Give& give) {
  Running& running = *output.running;
  if (running.rejected) return;
  give(running.task());
  if (running.draft.empty()) return;
  const absl::Span<const int32_t> tokens = running.task().tokens();
  const size_t next = static_cast<size_t>(output.index) + 1;
  const size_t place = running.draft.size() -
                       static_cast<size_t>(running.fed - 1 - output.index);
  running.rejected =
      next >= tokens.size() ||
      (place < running.draft.size() && tokens[next] != running.draft[place]);
}

void StepRunner::DeliverLogits() {
  const int rows = static_cast<int>(outputs_.size());
  for (int first = 0; first < rows; first += Engine::kMaxLogitRows) {
    DeliverRows(first, std::min(Engine::kMaxLogitRows, rows - first));
  }
}

absl::Span<const std::vector<cpu::TopProduct>> StepRunner::TopLogits(
    int first, int count) {
  std::vector<int> wanted;
  for (int i = first; i < first + count; ++i) {
    wanted.push_back(outputs_[i].running->task().top_logits());
    if (wanted.back() == 0) return {};
  }
  return engine_.TopLogits(first, wanted);
}

void StepRunner::DeliverRows(int first, int count) {
  const auto best = TopLogits(first, count);
  absl::Span<float> logits;
  if (best.empty()) logits = engine_.Logits(first, count);
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
      const Output& output = outputs_[first + i];
      DeliverRow(output, [&](Task& task) {
        if (best.empty()) {
          task.OnLogits(output.index, logits.subspan(i * vocab, vocab));
        } else {
          task.OnTopLogits(output.index, best[i]);
        }
      });
    }
  });
}

std::vector<Running*> StepRunner::stepped() const {
  std::vector<Running*> stepped;
  for (const Output& output : outputs_) {
    if (stepped.empty() || stepped.back() != output.running) {
      stepped.push_back(output.running);
    }
  }
  return stepped;
}

void StepRunner::Settle(Running& running) {
  if (running.draft.empty()) return;
  const auto tried = static_cast<int>(running.draft.size());
  const auto tokens = static_cast<int>(running.task().tokens().size());
  // What the step began with, then one token for each guess that was right and
  // one of the model's own, which runs in the next step.
  const int accepted = std::min(tried, tokens - (running.fed - tried) - 1);
  running.record.Add(tried, accepted);
  drafts_.tried += tried;
  drafts_.accepted += accepted;
  if (tokens - 1 < running.fed) {
    engine_.Truncate(running.slot, tokens - 1);
    running.fed = tokens - 1;
  }
  running.draft.clear();
  running.rejected = false;
}

void StepRunner::TakeBackGuesses(Running& running) {
  if (running.draft.empty()) return;
  running.fed -= static_cast<int>(running.draft.size());
  engine_.Truncate(running.slot, running.fed);
  running.draft.clear();
}

}  // namespace onegrid::inference
