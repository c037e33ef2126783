// One measurement of the engine alone, without gRPC: the cases of llama-bench.
#ifndef SERVICES_INFERENCE_BENCH_CASE_H_
#define SERVICES_INFERENCE_BENCH_CASE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/inference/engine.h"
#include "services/inference/gemma_weights.h"
#include "services/inference/op_profile.h"

namespace onegrid::inference {

struct BenchCase {
  // kPrompt runs a prompt of `tokens` and ends with the logits of its last one;
  // kGenerate runs `tokens` steps of one token of each sequence, each with its
  // logits.
  enum class Kind { kPrompt, kGenerate };
  Kind kind = Kind::kPrompt;
  int tokens = 512;
  int depth = 0;      // Tokens that each sequence holds before.
  int sequences = 1;  // Run together.
  int top_k = 0;      // Logits of each row that are asked for; 0: all.
};

// "pp512", "tg128 x8 @ d512", as llama-bench names them.
std::string BenchCaseName(const BenchCase& bench);

// What one token of a case takes on average.
struct BenchCost {
  // Of packed weights and of keys and values, read once a step and sequence.
  double bytes = 0;
  // Multiplications and additions that the model asks for in linears, head and
  // attention, whatever the bits of an input.
  double ops = 0;
};

// The cost of a token of `bench` where a step reads `head_bytes` for the logits
// of all its rows.
BenchCost CostOf(const BenchCase& bench, const Engine& engine,
                 const GemmaWeights& weights, double head_bytes);

struct BenchResult {
  std::vector<double> speeds;  // tokens a second, of each repetition
  double head_bytes = 0;       // read for the logits of a step, on average
};

// InvalidArgument: a case of nothing, or more sequences, tokens or context than
// the engine has.
absl::Status CheckBenchCase(const BenchCase& bench, const Engine& engine);

// Tokens a second of all sequences together, once for each repetition, after a
// step that is not measured. Fed with the same tokens each time, those of
// `text` from the first on, over and over, or random ones if it is empty; what
// came before `depth` is not computed again but copied. If the largest logits
// are asked for, the engine first learns what it wants to from the end of the
// text. What is measured, and nothing else, is added to `profile` unless that
// is null. Uses every slot of the engine, and leaves them empty.
absl::StatusOr<BenchResult> RunBenchCase(const BenchCase& bench,
                                         absl::Span<const int32_t> text,
                                         int repetitions, Engine& engine,
                                         OpProfile* profile = nullptr);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_BENCH_CASE_H_
