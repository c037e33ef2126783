#include "services/controller/tuning_spec.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/controller/blob_store.h"
#include "services/controller/registry.h"
#include "services/model/module_pattern.h"

namespace onegrid::controller {
namespace {

constexpr const char* kLinearKinds[] = {"q_proj",   "k_proj",    "v_proj",
                                        "o_proj",   "gate_proj", "up_proj",
                                        "down_proj"};
constexpr char kModulePattern[] =
    "a pattern that ends in one of q_proj k_proj v_proj o_proj gate_proj "
    "up_proj down_proj or has a * there";

struct Bound {
  const char* field;
  double value;
  double least;
  double most;
};

absl::Status CheckBound(const Bound& bound) {
  // A NaN is in no range.
  if (bound.value >= bound.least && bound.value <= bound.most) {
    return absl::OkStatus();
  }
  return InvalidField(bound.field, absl::StrCat(bound.value),
                      absl::StrCat(bound.least, "..", bound.most));
}

absl::Status CheckHyperparameters(const v1::Hyperparameters& h) {
  const Bound bounds[] = {
      {"hyperparameters.max_steps", 1.0 * h.max_steps(), 0, 1e7},
      {"hyperparameters.max_examples", 1.0 * h.max_examples(), 0, 1e12},
      {"hyperparameters.epochs", h.epochs(), 0, 1000},
      {"hyperparameters.sequence_tokens", 1.0 * h.sequence_tokens(), 16, 8192},
      {"hyperparameters.sequences_per_step", 1.0 * h.sequences_per_step(), 1,
       1024},
      {"hyperparameters.learning_rate", h.learning_rate(), 1e-9, 1},
      {"hyperparameters.warmup_ratio", h.warmup_ratio(), 0, 1},
      {"hyperparameters.max_grad_norm", h.max_grad_norm(), 1e-6, 1e6},
      {"hyperparameters.weight_decay", h.weight_decay(), 0, 10},
      {"hyperparameters.checkpoint_steps", 1.0 * h.checkpoint_steps(), 1, 1e6},
      {"hyperparameters.fold_examples", 1.0 * h.fold_examples(), 1, 1e6},
      {"hyperparameters.threads", 1.0 * h.threads(), 0, 4096},
      {"hyperparameters.eval_steps", 1.0 * h.eval_steps(), 0, 1e7},
      {"hyperparameters.eval_examples", 1.0 * h.eval_examples(), 0, 1e7},
      {"hyperparameters.early_stopping_patience",
       1.0 * h.early_stopping_patience(), 0, 1e6},
  };
  for (const Bound& bound : bounds) RETURN_IF_ERROR(CheckBound(bound));
  if (!v1::TrainOn_IsValid(h.train_on())) {
    return InvalidField("hyperparameters.train_on", absl::StrCat(h.train_on()),
                        "a TrainOn");
  }
  if (!v1::Hyperparameters::Precision_IsValid(h.precision())) {
    return InvalidField("hyperparameters.precision",
                        absl::StrCat(h.precision()), "a Precision");
  }
  return absl::OkStatus();
}

template <typename T>
T OrDefault(T value, T fallback) {
  return value == T{} ? fallback : value;
}

void FillHyperparameters(v1::Hyperparameters* h) {
  if (h->max_steps() == 0) h->set_epochs(OrDefault(h->epochs(), 1.0));
  h->set_sequence_tokens(OrDefault(h->sequence_tokens(), 1024));
  h->set_sequences_per_step(OrDefault(h->sequences_per_step(), 2));
  h->set_learning_rate(OrDefault(h->learning_rate(), 1e-3));
  h->set_warmup_ratio(OrDefault(h->warmup_ratio(), 0.05));
  h->set_max_grad_norm(OrDefault(h->max_grad_norm(), 1.0));
  h->set_checkpoint_steps(OrDefault(h->checkpoint_steps(), 25));
  h->set_fold_examples(OrDefault(h->fold_examples(), 600));
}

// The shape of an adapter that begins at random.
void FillLoraShape(v1::LoraSpec* lora) {
  lora->set_rank(OrDefault(lora->rank(), 16));
  lora->set_alpha(OrDefault(lora->alpha(), 2.0 * lora->rank()));
  if (lora->target_modules().empty()) {
    for (const char* kind : kLinearKinds) lora->add_target_modules(kind);
  }
}

absl::Status CheckRef(const std::string& field, const v1::ArtifactRef& ref) {
  if (IsSha256(ref.sha256())) return absl::OkStatus();
  return InvalidField(field + ".sha256", ref.sha256(),
                      "64 lower-case hex digits");
}

// What an initial adapter leaves to the job; its files are the worker's.
absl::Status CheckInitialAdapter(const v1::TuningJob& job) {
  const v1::InitialAdapter& adapter = job.initial_adapter();
  RETURN_IF_ERROR(CheckRef("initial_adapter.tensors", adapter.tensors()));
  if (adapter.has_config()) {
    RETURN_IF_ERROR(CheckRef("initial_adapter.config", adapter.config()));
  }
  if (job.mode() != v1::QLORA && job.mode() != v1::QLORA_FOLD &&
      job.mode() != v1::QLORA_QAT) {
    return InvalidField("mode", v1::TuningMode_Name(job.mode()),
                        "QLORA, QLORA_FOLD or QLORA_QAT: others have no use "
                        "for initial_adapter");
  }
  if (job.lora().patterns_size() > 0) {
    return InvalidField("lora.patterns", job.lora().patterns(0).modules(),
                        "none: initial_adapter has its own ranks and alphas");
  }
  return absl::OkStatus();
}

absl::Status CompleteLora(bool has_initial, v1::LoraSpec* lora) {
  if (!has_initial) FillLoraShape(lora);
  // Left out, they are the initial adapter's.
  if (lora->rank() != 0) {
    RETURN_IF_ERROR(CheckBound({"lora.rank", 1.0 * lora->rank(), 1, 256}));
  }
  if (lora->alpha() != 0) {
    RETURN_IF_ERROR(CheckBound({"lora.alpha", lora->alpha(), 1e-6, 1e6}));
  }
  RETURN_IF_ERROR(CheckBound({"lora.dropout", lora->dropout(), 0, 0.999}));
  for (const std::string& target : lora->target_modules()) {
    if (!model::ModulePattern::Parse(target).ok()) {
      return InvalidField("lora.target_modules", target, kModulePattern);
    }
  }
  for (const v1::LoraPattern& pattern : lora->patterns()) {
    if (!model::ModulePattern::Parse(pattern.modules()).ok()) {
      return InvalidField("lora.patterns.modules", pattern.modules(),
                          kModulePattern);
    }
    RETURN_IF_ERROR(
        CheckBound({"lora.patterns.rank", 1.0 * pattern.rank(), 0, 256}));
    RETURN_IF_ERROR(
        CheckBound({"lora.patterns.alpha", pattern.alpha(), 0, 1e6}));
  }
  lora->set_lora_plus_ratio(OrDefault(lora->lora_plus_ratio(), 1.0));
  RETURN_IF_ERROR(
      CheckBound({"lora.lora_plus_ratio", lora->lora_plus_ratio(), 0.01, 1e3}));
  if (!lora->use_dora()) return absl::OkStatus();
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "DORA_UNSUPPORTED",
      "use_dora is not supported: a GGUF LoRA file cannot carry the magnitude "
      "vectors of DoRA, so llama.cpp would serve another model than the one "
      "that was trained",
      {{"field", "lora.use_dora"}});
}

absl::Status CheckGrid(const v1::GridSpec& grid) {
  const Bound bounds[] = {
      {"grid.polish_steps", 1.0 * grid.polish_steps(), 0, 1e7},
      {"grid.polish_ratio", grid.polish_ratio(), 0, 1e3},
      {"grid.scale_learning_rate", grid.scale_learning_rate(), 0, 1},
      {"grid.weight_learning_rate", grid.weight_learning_rate(), 0, 1},
      {"grid.rank", 1.0 * grid.rank(), 0, 256},
  };
  for (const Bound& bound : bounds) RETURN_IF_ERROR(CheckBound(bound));
  return absl::OkStatus();
}

absl::Status CheckDistillation(const v1::DistillationSpec& spec) {
  const Bound bounds[] = {
      {"distillation.cross_entropy_weight", spec.cross_entropy_weight(), -1e3,
       1e3},
      {"distillation.kl_weight", spec.kl_weight(), -1e3, 1e3},
      {"distillation.vocabulary_top", 1.0 * spec.vocabulary_top(), 0, 4096},
      {"distillation.top", 1.0 * spec.top(), 0,
       spec.vocabulary_top() > 0 ? 0.0 : 4096.0},
  };
  for (const Bound& bound : bounds) RETURN_IF_ERROR(CheckBound(bound));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::TuningJob> CompleteTuningJob(const v1::TuningJob& job) {
  v1::TuningJob out;
  out.set_display_name(job.display_name());
  out.set_base_model(job.base_model());
  out.set_dataset(job.dataset());
  out.set_mode(job.mode() == v1::TUNING_MODE_UNSPECIFIED ? v1::QLORA_QAT
                                                         : job.mode());
  if (!v1::TuningMode_IsValid(out.mode())) {
    return InvalidField("mode", absl::StrCat(out.mode()), "a TuningMode");
  }
  *out.mutable_lora() = job.lora();
  RETURN_IF_ERROR(CompleteLora(job.has_initial_adapter(), out.mutable_lora()));
  if (job.has_initial_adapter()) {
    *out.mutable_initial_adapter() = job.initial_adapter();
    RETURN_IF_ERROR(CheckInitialAdapter(out));
  }
  *out.mutable_hyperparameters() = job.hyperparameters();
  FillHyperparameters(out.mutable_hyperparameters());
  RETURN_IF_ERROR(CheckHyperparameters(out.hyperparameters()));
  *out.mutable_grid() = job.grid();
  RETURN_IF_ERROR(CheckGrid(out.grid()));
  *out.mutable_distillation() = job.distillation();
  RETURN_IF_ERROR(CheckDistillation(out.distillation()));
  out.set_seed(job.seed());
  out.set_max_attempts(OrDefault(job.max_attempts(), 3));
  RETURN_IF_ERROR(
      CheckBound({"max_attempts", 1.0 * out.max_attempts(), 1, 100}));
  return out;
}

}  // namespace onegrid::controller
