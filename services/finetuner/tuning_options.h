// What a tuning run is asked to do, with every default filled in. Plain data:
// the worker makes it from a TuningJob, the standalone mode from flags.
#ifndef SERVICES_FINETUNER_TUNING_OPTIONS_H_
#define SERVICES_FINETUNER_TUNING_OPTIONS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace onegrid::finetuner {

// Type of the large matrix products.
enum class Precision { kAuto, kF32, kBf16 };

struct TuningOptions {
  // Adapter.
  int64_t rank = 16;
  double alpha = 32;
  double dropout = 0;
  std::vector<std::string> target_modules;  // Empty: all linears.
  // Learn.
  int64_t max_steps = 0;     // 0: epochs decide.
  int64_t max_examples = 0;  // 0: all.
  double epochs = 1;
  int64_t sequence_tokens = 1024;
  int64_t sequences_per_step = 2;
  double learning_rate = 1e-3;
  double warmup_ratio = 0.05;
  double max_grad_norm = 1;
  double weight_decay = 0;
  int64_t checkpoint_steps = 25;
  uint64_t seed = 0;
  Precision precision = Precision::kAuto;
  int threads = 0;  // 0: from affinity and cgroup quota.
  // Fold.
  bool fold = true;
  int64_t fold_examples = 600;
  // Evaluation and probe.
  int64_t max_eval_examples = 0;  // 0: all.
  int64_t probe_tokens = 1500;
  std::string base_model_name = "gemma3-270m";  // For adapter_config.json.
};

// InvalidArgument (INVALID_HYPERPARAMETER; field, value, range) for the first
// value out of its range.
absl::Status ValidateOptions(const TuningOptions& options);

// Local files.
struct TuningInputs {
  std::string base;  // Grid GGUF.
  std::string train;
  std::string test;
  std::string validation;
  std::string probe_text;   // Empty: no probe is made.
  std::string resume_from;  // Checkpoint; empty on a first attempt.
};

// Accuracy in percent and perplexity of one model on the test split.
struct EvaluationResult {
  double accuracy = 0;
  double perplexity = 0;
  int64_t examples = 0;
  int64_t completion_tokens = 0;
};

// What a run made. Paths are empty for what was not asked for.
struct TuningOutputs {
  std::string adapter;
  std::string adapter_config;
  std::string folded;
  std::string metrics_jsonl;
  std::string probe;
  EvaluationResult float_adapter;
  EvaluationResult folded_metrics;
  double codes_changed = 0;  // Share, 0..1.
  double tokens_per_second = 0;
};

// Where a run is.
struct TuningProgress {
  std::string stage;  // "load", "learn", "fold", "evaluate", "probe"
  int64_t step = 0;
  int64_t total_steps = 0;  // 0: unknown.
  double eta_seconds = 0;   // Of this stage.
  std::map<std::string, double> metrics;
};

// What a run needs from whoever started it. Called from the run's own thread.
class TuningHost {
 public:
  virtual ~TuningHost() = default;
  // Asked at least once a step; the run then ends with Cancelled.
  virtual bool cancelled() = 0;
  virtual void OnProgress(const TuningProgress& progress) = 0;
  // `path` is a whole, synced file that the run replaces at its next
  // checkpoint.
  virtual absl::Status OnCheckpoint(const TuningProgress& progress,
                                    const std::string& path) = 0;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_TUNING_OPTIONS_H_
