#include "services/inference/bench_case.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"

namespace onegrid::inference {
namespace {

using Clock = std::chrono::steady_clock;
using Kind = BenchCase::Kind;

// More than the engine learns from.
constexpr int64_t kLearnTokens = 512;

// Multiplications and additions of attention for one query at `position`.
double AttentionOps(const model::GemmaConfig& c, int64_t position) {
  double elements = 0;
  for (const model::GemmaLayer& layer : c.layers) {
    elements += static_cast<double>(
        layer.head_dim *
        (layer.global ? position + 1
                      : std::min<int64_t>(position + 1, c.sliding_window)));
  }
  return 4 * elements * static_cast<double>(c.heads);
}

// `count` tokens: of the text, over and over; random ones if that is empty.
std::vector<int32_t> Tokens(absl::Span<const int32_t> text, int64_t count,
                            int64_t vocabulary) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  if (!text.empty()) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = text[i % text.size()];
    }
    return tokens;
  }
  uint32_t state = 1;
  for (int32_t& token : tokens) {
    state = state * 1664525u + 1013904223u;
    token = static_cast<int32_t>(state / 2 % static_cast<uint32_t>(vocabulary));
  }
  return tokens;
}

// One case on one engine.
class Runner {
 public:
  Runner(const BenchCase& bench, absl::Span<const int32_t> text, Engine& engine)
      : bench_(bench),
        engine_(engine),
        tokens_(Tokens(text, int64_t{bench.depth} + bench.tokens,
                       engine.config().vocab_size)) {}

  // Lets the engine learn from the last `text` that fits.
  absl::Status Learn(absl::Span<const int32_t> text) {
    if (bench_.top_k == 0) return absl::OkStatus();
    const int rows =
        std::min({Engine::kMaxLogitRows, engine_.options().max_step_tokens,
                  engine_.options().max_context});
    const std::vector<int32_t> tokens =
        Tokens(text, std::max(kLearnTokens, static_cast<int64_t>(text.size())),
               engine_.config().vocab_size);
    const auto end = static_cast<int64_t>(tokens.size());
    for (int64_t at = end - kLearnTokens; !engine_.top_logits_learnt();) {
      const int count = static_cast<int>(std::min<int64_t>(rows, end - at));
      if (count > 0) {
        if (engine_.length(source()) + count > engine_.options().max_context) {
          engine_.Reset(source());
        }
        RETURN_IF_ERROR(engine_.Forward(
            {Chunk{source(),
                   absl::MakeConstSpan(tokens).subspan(
                       static_cast<size_t>(at), static_cast<size_t>(count)),
                   0}}));
        at += count;
      }
      const int asked = count > 0 ? count : 1;
      engine_.TopLogits(0, std::vector<int>(static_cast<size_t>(asked), 1));
    }
    engine_.Reset(source());
    return absl::OkStatus();
  }

  // Fills the last slot up to the depth: what every repetition starts from.
  absl::Status Fill() {
    // Wakes the threads and touches the work space.
    const int step = engine_.options().max_step_tokens;
    RETURN_IF_ERROR(Feed(source(), 0, std::min(step, end())));
    engine_.Logits(0, 1);
    engine_.Reset(source());
    return Feed(source(), 0, bench_.depth);
  }

  // Seconds of one repetition.
  absl::StatusOr<double> Measure(OpProfile* profile) {
    for (int slot = 0; slot < bench_.sequences; ++slot) {
      engine_.Copy(source(), slot);
    }
    engine_.set_profile(profile);
    const Clock::time_point start = Clock::now();
    const absl::Status status =
        bench_.kind == Kind::kPrompt ? Prompt() : Generate();
    engine_.set_profile(nullptr);
    RETURN_IF_ERROR(status);
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  // Of the head, read in all steps that were measured.
  int64_t head_bytes() const { return head_bytes_; }

  void Clear() {
    for (int slot = 0; slot < engine_.options().max_sequences; ++slot) {
      engine_.Reset(slot);
    }
  }

 private:
  // The slot after those that are measured.
  int source() const { return bench_.sequences; }
  int end() const { return bench_.depth + bench_.tokens; }

  // Runs tokens [begin, end) of a slot's sequence; the last has an output.
  absl::Status Feed(int slot, int begin, int end) {
    const int step = engine_.options().max_step_tokens;
    for (int at = begin; at < end; at += step) {
      const int count = std::min(step, end - at);
      const auto part = absl::MakeConstSpan(tokens_).subspan(
          static_cast<size_t>(at), static_cast<size_t>(count));
      const int first_output = at + count == end ? count - 1 : count;
      RETURN_IF_ERROR(engine_.Forward({Chunk{slot, part, first_output}}));
    }
    return absl::OkStatus();
  }

  absl::Status Prompt() {
    for (int slot = 0; slot < bench_.sequences; ++slot) {
      RETURN_IF_ERROR(Feed(slot, bench_.depth, end()));
      Logits(0, 1);
    }
    return absl::OkStatus();
  }

  absl::Status Generate() {
    for (int i = 0; i < bench_.tokens; ++i) {
      const auto token = absl::MakeConstSpan(tokens_).subspan(
          static_cast<size_t>(bench_.depth + i), 1);
      std::vector<Chunk> chunks;
      for (int slot = 0; slot < bench_.sequences; ++slot) {
        chunks.push_back({slot, token, 0});
      }
      RETURN_IF_ERROR(engine_.Forward(chunks));
      for (int row = 0; row < bench_.sequences; row += Engine::kMaxLogitRows) {
        Logits(row, std::min(Engine::kMaxLogitRows, bench_.sequences - row));
      }
    }
    return absl::OkStatus();
  }

  void Logits(int first, int count) {
    const std::vector<int> counts(static_cast<size_t>(count), bench_.top_k);
    if (bench_.top_k == 0 || engine_.TopLogits(first, counts).empty()) {
      engine_.Logits(first, count);
    }
    head_bytes_ += engine_.head_bytes_read();
  }

  const BenchCase bench_;
  Engine& engine_;
  const std::vector<int32_t> tokens_;
  int64_t head_bytes_ = 0;
};

}  // namespace

std::string BenchCaseName(const BenchCase& bench) {
  std::string name =
      absl::StrCat(bench.kind == Kind::kPrompt ? "pp" : "tg", bench.tokens);
  if (bench.sequences > 1) absl::StrAppend(&name, " x", bench.sequences);
  if (bench.depth > 0) absl::StrAppend(&name, " @ d", bench.depth);
  if (bench.top_k > 0) absl::StrAppend(&name, " top ", bench.top_k);
  return name;
}

BenchCost CostOf(const BenchCase& bench, const Engine& engine,
                 const GemmaWeights& weights, double head_bytes) {
  const double body = static_cast<double>(weights.body_bytes());
  const double head_ops = 2 * static_cast<double>(weights.head().elements());
  const bool prompt = bench.kind == Kind::kPrompt;
  const int step = prompt ? engine.options().max_step_tokens : 1;
  // Of one sequence, all its tokens; the sequences of a generation share the
  // weights that a step reads.
  const double sharing = prompt ? 1 : bench.sequences;
  double bytes = 0, ops = 0;
  for (int at = 0; at < bench.tokens; at += step) {
    const int end = std::min(bench.tokens, at + step);
    bytes += body / sharing;
    bytes += static_cast<double>(engine.kv_bytes_read(bench.depth + end - 1));
  }
  for (int i = 0; i < bench.tokens; ++i) {
    ops += AttentionOps(engine.config(), bench.depth + i);
  }
  const double tokens = bench.tokens;
  const double rows = prompt ? 1 : tokens;
  bytes += rows * head_bytes / sharing;
  ops += tokens * 2 * static_cast<double>(weights.body_elements()) +
         rows * head_ops;
  return {bytes / tokens, ops / tokens};
}

absl::Status CheckBenchCase(const BenchCase& bench, const Engine& engine) {
  const EngineOptions& limits = engine.options();
  std::string problem;
  if (bench.tokens < 1 || bench.sequences < 1 || bench.depth < 0) {
    problem = "expected at least one token and sequence, and no depth below 0";
  } else if (bench.sequences >= limits.max_sequences) {
    problem = absl::StrCat("the engine has slots for ",
                           limits.max_sequences - 1, " sequences");
  } else if (int64_t{bench.depth} + bench.tokens > limits.max_context) {
    problem = absl::StrCat("a sequence holds at most ", limits.max_context,
                           " tokens");
  }
  if (problem.empty()) return absl::OkStatus();
  const std::string name = BenchCaseName(bench);
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "INVALID_BENCH_CASE",
                           absl::StrCat(name, ": ", problem), {{"case", name}});
}

absl::StatusOr<BenchResult> RunBenchCase(const BenchCase& bench,
                                         absl::Span<const int32_t> text,
                                         int repetitions, Engine& engine,
                                         OpProfile* profile) {
  RETURN_IF_ERROR(CheckBenchCase(bench, engine));
  Runner runner(bench, text, engine);
  RETURN_IF_ERROR(runner.Learn(text));
  RETURN_IF_ERROR(runner.Fill());
  BenchResult result;
  for (int i = 0; i < repetitions; ++i) {
    ASSIGN_OR_RETURN(const double seconds, runner.Measure(profile));
    result.speeds.push_back(static_cast<double>(bench.tokens) *
                            bench.sequences / seconds);
  }
  runner.Clear();
  const int steps =
      bench.kind == Kind::kPrompt ? bench.sequences : bench.tokens;
  result.head_bytes = static_cast<double>(runner.head_bytes()) /
                      (static_cast<double>(steps) * std::max(repetitions, 1));
  return result;
}

}  // namespace onegrid::inference
