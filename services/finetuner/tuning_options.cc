#include "services/finetuner/tuning_options.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/error_info.h"

namespace onegrid::finetuner {
namespace {

// The value must lie in [low, high].
absl::Status CheckRange(const std::string& field, double value, double low,
                        double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  const std::string range = absl::StrCat(low, "..", high);
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_HYPERPARAMETER",
      absl::StrCat(field, " is ", value, ", must be in ", range),
      {{"field", field}, {"value", absl::StrCat(value)}, {"range", range}});
}

constexpr const char* kModes[] = {"qlora",  "qlora_fold", "qlora_qat",
                                  "lr_qat", "peqa",       "full_qat"};
// Gradients of relative moves can be far below the usual 1e-8.
constexpr double kGridAdamEps = 1e-12;
constexpr uint64_t kPolishSeed = 7919;

absl::Status ValidateGridOptions(const GridOptions& grid) {
  RETURN_IF_ERROR(CheckRange("grid.polish_steps", grid.polish_steps, 0, 1e7));
  RETURN_IF_ERROR(CheckRange("grid.polish_ratio", grid.polish_ratio, 0, 1e3));
  RETURN_IF_ERROR(
      CheckRange("grid.scale_learning_rate", grid.scale_learning_rate, 0, 1));
  RETURN_IF_ERROR(
      CheckRange("grid.weight_learning_rate", grid.weight_learning_rate, 0, 1));
  return CheckRange("grid.rank", grid.rank, 0, 256);
}

absl::Status CheckInitialAdapter(const TuningOptions& options) {
  if (options.initial_adapter == InitialAdapter::kNone) return absl::OkStatus();
  const auto invalid = [](const std::string& field, const std::string& what) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "INVALID_HYPERPARAMETER",
        absl::StrCat(field, " ", what), {{"field", field}});
  };
  if (!HasAdapter(options.mode)) {
    return invalid("initial_adapter",
                   absl::StrCat("is given, but mode ", ModeName(options.mode),
                                " trains no adapter"));
  }
  if (!options.lora_patterns.empty()) {
    return invalid("lora.patterns",
                   "are given, but the initial adapter has its own ranks and "
                   "alphas");
  }
  return absl::OkStatus();
}

absl::Status ValidateDistillation(const DistillationOptions& distillation) {
  RETURN_IF_ERROR(CheckRange("distillation.cross_entropy",
                             distillation.cross_entropy, 0, 1e3));
  RETURN_IF_ERROR(CheckRange("distillation.kl", distillation.kl, 0, 1e3));
  RETURN_IF_ERROR(CheckRange("distillation.vocabulary_top",
                             distillation.vocabulary_top, 0, 4096));
  // What is kept of a teacher's tokens may lie outside of the part.
  const double top_max = distillation.vocabulary_top > 0 ? 0 : 4096;
  return CheckRange("distillation.top", distillation.top, 0, top_max);
}

}  // namespace

const char* ModeName(TuningMode mode) {
  return kModes[static_cast<size_t>(mode)];
}

absl::StatusOr<TuningMode> ModeByName(absl::string_view name) {
  for (size_t i = 0; i < std::size(kModes); ++i) {
    if (name == kModes[i]) return static_cast<TuningMode>(i);
  }
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_HYPERPARAMETER",
      absl::StrCat("no mode is named ", name, "; there are ",
                   absl::StrJoin(kModes, ", ")),
      {{"field", "mode"}, {"value", std::string(name)}});
}

bool HasAdapter(TuningMode mode) {
  return mode == TuningMode::kQlora || mode == TuningMode::kQloraFold ||
         mode == TuningMode::kQloraQat;
}

double ScaleLearningRate(const TuningOptions& options) {
  if (options.grid.scale_learning_rate > 0) {
    return options.grid.scale_learning_rate;
  }
  return options.mode == TuningMode::kPeqa ? 3e-3 : 1e-3;
}

double WeightLearningRate(const TuningOptions& options) {
  if (options.grid.weight_learning_rate > 0) {
    return options.grid.weight_learning_rate;
  }
  return 3e-3;
}

StageOptions FirstStage(const TuningOptions& options) {
  StageOptions stage;
  stage.max_steps = options.max_steps;
  stage.epochs = options.epochs;
  stage.sequence_tokens = options.sequence_tokens;
  stage.sequences_per_step = options.sequences_per_step;
  stage.learning_rate = options.learning_rate;
  stage.warmup_ratio = options.warmup_ratio;
  stage.max_grad_norm = options.max_grad_norm;
  stage.weight_decay = options.weight_decay;
  stage.seed = options.seed;
  if (!HasAdapter(options.mode)) {
    stage.learning_rate = ScaleLearningRate(options);
    stage.adam_eps = kGridAdamEps;
  }
  return stage;
}

StageOptions PolishStage(const TuningOptions& options, int64_t learn_steps) {
  StageOptions stage = FirstStage(options);
  stage.max_steps = options.grid.polish_steps;
  if (stage.max_steps == 0) {
    stage.max_steps = std::max<int64_t>(
        1, static_cast<int64_t>(options.grid.polish_ratio *
                                static_cast<double>(learn_steps)));
  }
  stage.learning_rate = ScaleLearningRate(options);
  stage.adam_eps = kGridAdamEps;
  stage.weight_decay = 0;
  // Another order than the learn stage's.
  stage.seed = options.seed + kPolishSeed;
  return stage;
}

LoraOptions AdapterOptions(const TuningOptions& options) {
  LoraOptions lora;
  lora.rank = options.rank;
  lora.alpha = options.alpha;
  lora.dropout = options.dropout;
  lora.targets = options.target_modules;
  lora.patterns = options.lora_patterns;
  lora.use_rslora = options.use_rslora;
  lora.lora_plus_ratio = options.lora_plus_ratio;
  return lora;
}

absl::Status ValidateOptions(const TuningOptions& options) {
  RETURN_IF_ERROR(CheckInitialAdapter(options));
  if (options.initial_adapter == InitialAdapter::kNone || options.rank != 0) {
    RETURN_IF_ERROR(CheckRange("lora.rank", options.rank, 1, 256));
  }
  if (options.initial_adapter == InitialAdapter::kNone || options.alpha != 0) {
    RETURN_IF_ERROR(CheckRange("lora.alpha", options.alpha, 1e-6, 1e6));
  }
  RETURN_IF_ERROR(CheckRange("lora.dropout", options.dropout, 0, 0.99));
  RETURN_IF_ERROR(
      CheckRange("lora.lora_plus_ratio", options.lora_plus_ratio, 0.01, 1000));
  RETURN_IF_ERROR(CheckRange("max_steps", options.max_steps, 0, 1e7));
  RETURN_IF_ERROR(CheckRange("max_examples", options.max_examples, 0, 1e9));
  RETURN_IF_ERROR(CheckRange("epochs", options.epochs, 1e-6, 1e4));
  RETURN_IF_ERROR(
      CheckRange("sequence_tokens", options.sequence_tokens, 8, 8192));
  RETURN_IF_ERROR(
      CheckRange("sequences_per_step", options.sequences_per_step, 1, 1024));
  RETURN_IF_ERROR(CheckRange("learning_rate", options.learning_rate, 0, 1));
  RETURN_IF_ERROR(CheckRange("warmup_ratio", options.warmup_ratio, 0, 1));
  RETURN_IF_ERROR(CheckRange("max_grad_norm", options.max_grad_norm, 0, 1e6));
  RETURN_IF_ERROR(CheckRange("weight_decay", options.weight_decay, 0, 1));
  RETURN_IF_ERROR(
      CheckRange("checkpoint_steps", options.checkpoint_steps, 1, 1e7));
  RETURN_IF_ERROR(CheckRange("threads", options.threads, 0, 1024));
  RETURN_IF_ERROR(CheckRange("fold_examples", options.fold_examples, 1, 1e6));
  RETURN_IF_ERROR(CheckRange("eval_steps", options.eval_steps, 0, 1e7));
  RETURN_IF_ERROR(CheckRange("eval_examples", options.eval_examples, 0, 1e7));
  RETURN_IF_ERROR(CheckRange("patience", options.patience, 0, 1e6));
  RETURN_IF_ERROR(ValidateGridOptions(options.grid));
  RETURN_IF_ERROR(ValidateDistillation(options.distillation));
  RETURN_IF_ERROR(
      CheckRange("max_eval_examples", options.max_eval_examples, 0, 1e9));
  return CheckRange("probe_tokens", options.probe_tokens, 0, 1e6);
}

}  // namespace onegrid::finetuner
