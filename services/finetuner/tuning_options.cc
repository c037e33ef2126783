#include "services/finetuner/tuning_options.h"

#include <string>

#include "absl/strings/str_cat.h"
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

}  // namespace

absl::Status ValidateOptions(const TuningOptions& options) {
  RETURN_IF_ERROR(CheckRange("lora.rank", options.rank, 1, 256));
  RETURN_IF_ERROR(CheckRange("lora.alpha", options.alpha, 1e-6, 1e6));
  RETURN_IF_ERROR(CheckRange("lora.dropout", options.dropout, 0, 0.99));
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
  RETURN_IF_ERROR(
      CheckRange("max_eval_examples", options.max_eval_examples, 0, 1e9));
  return CheckRange("probe_tokens", options.probe_tokens, 0, 1e6);
}

}  // namespace onegrid::finetuner
