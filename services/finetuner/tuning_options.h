// What a tuning run is asked to do, with every default filled in. Plain data:
// the worker makes it from a TuningJob, the standalone mode from flags.
#ifndef SERVICES_FINETUNER_TUNING_OPTIONS_H_
#define SERVICES_FINETUNER_TUNING_OPTIONS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/common/adapter_files.h"
#include "services/finetuner/data_options.h"
#include "services/finetuner/lora_plan.h"

namespace onegrid::finetuner {

// What a run does with an adapter from elsewhere.
enum class InitialAdapter {
  kNone,   // There is none: training begins with a random one.
  kLearn,  // Training goes on from it.
  kKeep,   // It is folded and polished as it is, without a learn stage.
};

// Type of the large matrix products.
enum class Precision { kAuto, kF32, kBf16 };

// What is trained. See README.md for which to use when.
enum class TuningMode {
  kQlora,      // A float adapter beside the frozen grid.
  kQloraFold,  // kQlora, then the adapter folded into the codes.
  kQloraQat,   // kQloraFold, then the grid polished: the default.
  kLrQat,      // A low-rank change inside the rounding, and the scales.
  kPeqa,       // The scales only.
  kFullQat,    // Every weight and the scales.
};

// "qlora", "qlora_fold", "qlora_qat", "lr_qat", "peqa", "full_qat".
const char* ModeName(TuningMode mode);
// InvalidArgument (INVALID_HYPERPARAMETER): no such mode.
absl::StatusOr<TuningMode> ModeByName(absl::string_view name);

// One training stage: the trainer's view of the options.
struct StageOptions {
  int64_t max_steps = 0;  // 0: epochs decide.
  double epochs = 1;
  int64_t sequence_tokens = 1024;
  int64_t sequences_per_step = 2;
  double learning_rate = 1e-3;
  double warmup_ratio = 0.05;
  double max_grad_norm = 1;
  double weight_decay = 0;
  double adam_eps = 1e-8;
  uint64_t seed = 0;
};

// How the grid itself is trained: the polish of kQloraQat, or the whole run of
// kLrQat, kPeqa and kFullQat.
struct GridOptions {
  // Optimizer steps of the polish; 0: steps_ratio of the learn stage's. The
  // other modes take the run's max_steps and epochs.
  int64_t polish_steps = 0;
  double polish_ratio = 0.25;
  // Peak rates. Scales move relatively to themselves; weights of kFullQat in
  // steps of their scale; low-rank factors as a LoRA's. 0: the mode's default.
  double scale_learning_rate = 0;
  double weight_learning_rate = 0;
  // Low-rank change inside the rounding: rank 0 means none, but for kLrQat
  // TuningOptions' rank and alpha.
  int64_t rank = 0;
  // Train with activations and cached keys and values rounded as served.
  bool as_served = true;
  // "int4", "mobile_e2b", "auto:BYTES" or the text of a plan; empty: the base's
  // own grids.
  std::string plan;
};

// Weights of the losses where there is a teacher: the polish of kQloraQat has
// the adapter's model, every other stage TuningInputs::teacher. Without one the
// loss is the cross-entropy.
struct DistillationOptions {
  double cross_entropy = 1;
  double kl = 1;
  // Keep this many of the teacher's most likely tokens of each label instead of
  // running it in every step; 0: run it.
  int64_t top = 0;
  // Take the losses over the labels and the teacher's so many most likely
  // tokens at a sample of them only (loss_vocabulary.h); 0: over the whole
  // vocabulary. Not together with `top`.
  int64_t vocabulary_top = 0;
};

struct TuningOptions {
  TuningMode mode = TuningMode::kQloraQat;
  // Adapter. With an initial one a rank or alpha of 0 is that adapter's, and
  // other values must be.
  InitialAdapter initial_adapter = InitialAdapter::kNone;
  int64_t rank = 16;
  double alpha = 32;
  double dropout = 0;
  std::vector<std::string> target_modules;  // Empty: all linears.
  std::vector<LoraPattern> lora_patterns;
  bool use_rslora = false;
  double lora_plus_ratio = 1;
  // Reading of the splits.
  DataOptions data;
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
  // Fold and grid.
  int64_t fold_examples = 600;
  GridOptions grid;
  DistillationOptions distillation;
  // Choice of the best checkpoint: every eval_steps (0: a fifth of the stage)
  // the first eval_examples of the validation split are scored with the model
  // as it would be exported; after `patience` scores in a row without a better
  // one the stage ends (0: never).
  int64_t eval_steps = 0;
  int64_t eval_examples = 200;
  int64_t patience = 0;
  // Evaluation and probe.
  int64_t max_eval_examples = 0;  // 0: all.
  int64_t probe_tokens = 1500;
  // Write probe_served.safetensors too, by the served arithmetic.
  bool probe_as_served = false;
  std::string base_model_name = "gemma3-270m";  // For adapter_config.json.
};

// The adapter's part, see lora_plan.h.
LoraOptions AdapterOptions(const TuningOptions& options);

// InvalidArgument (INVALID_HYPERPARAMETER; field, value, range) for the first
// value out of its range.
absl::Status ValidateOptions(const TuningOptions& options);

// Of the grid, defaults filled in.
double ScaleLearningRate(const TuningOptions& options);
double WeightLearningRate(const TuningOptions& options);

// The learn stage, or the whole run of the modes without one. The learning rate
// of a stage on the grid is the scales'.
StageOptions FirstStage(const TuningOptions& options);
// The polish after a learn stage of `learn_steps`.
StageOptions PolishStage(const TuningOptions& options, int64_t learn_steps);
// True if the mode begins by training a float adapter.
bool HasAdapter(TuningMode mode);

// Local files.
struct TuningInputs {
  std::string base;  // Grid GGUF.
  // The base's float weights, a GGUF of any types, or empty: where kFullQat's
  // weights start, and the teacher if no other is given.
  std::string float_base;
  // GGUF of any types and the same vocabulary, or empty.
  std::string teacher;
  std::string train;
  std::string test;
  std::string validation;
  std::string probe_text;   // Empty: no probe is made.
  std::string resume_from;  // Checkpoint; empty on a first attempt.
  // As TuningOptions::initial_adapter says.
  common::AdapterFiles initial_adapter;
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
  std::string validation_report;  // See data_report.h.
  std::string probe;
  std::string served_probe;
  EvaluationResult float_adapter;
  EvaluationResult folded_metrics;
  double codes_changed = 0;  // Share of the base's codes, 0..1.
  // Of the last stage that chose by evaluation: nats per token of validation,
  // and the step it was reached at.
  double best_score = 0;
  int64_t best_step = 0;
  double tokens_per_second = 0;
};

// Where a run is.
struct TuningProgress {
  // "load", "plan", "learn", "fold", "teach", "polish", "train", "evaluate",
  // "probe"
  std::string stage;
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
