#include "services/finetuner/tune_work.h"

#include <cmath>
#include <string>

#include "google/protobuf/util/time_util.h"
#include "services/common/error_info.h"
#include "services/finetuner/tuning_run.h"

namespace onegrid::finetuner {
namespace {

constexpr char kSafetensors[] = "application/x-safetensors";
constexpr char kJson[] = "application/json";
constexpr char kJsonl[] = "application/jsonl";

// Sets `*out` unless the proto field has its zero value.
template <typename T, typename V>
void SetIfGiven(V value, T* out) {
  if (value != V{}) *out = static_cast<T>(value);
}

// The name of a base model without its collection.
std::string BaseName(const std::string& resource) {
  const size_t slash = resource.rfind('/');
  return slash == std::string::npos ? resource : resource.substr(slash + 1);
}

v1::Progress ToProto(const TuningProgress& progress) {
  v1::Progress proto;
  proto.set_stage(progress.stage);
  proto.set_step(progress.step);
  proto.set_total_steps(progress.total_steps);
  *proto.mutable_eta() =
      google::protobuf::util::TimeUtil::MillisecondsToDuration(
          static_cast<int64_t>(std::llround(progress.eta_seconds * 1000)));
  proto.mutable_metrics()->insert(progress.metrics.begin(),
                                  progress.metrics.end());
  return proto;
}

v1::ModelMetrics ToProto(const EvaluationResult& result) {
  v1::ModelMetrics proto;
  proto.set_accuracy(result.accuracy);
  proto.set_perplexity(result.perplexity);
  proto.set_examples(result.examples);
  proto.set_completion_tokens(result.completion_tokens);
  return proto;
}

// Reports to the controller.
class WorkHost : public TuningHost {
 public:
  explicit WorkHost(common::WorkContext* context) : context_(context) {}

  bool cancelled() override { return context_->cancelled(); }

  void OnProgress(const TuningProgress& progress) override {
    context_->ReportProgress(ToProto(progress));
  }

  absl::Status OnCheckpoint(const TuningProgress& progress,
                            const std::string& path) override {
    v1::Checkpoint checkpoint;
    checkpoint.set_stage(progress.stage);
    checkpoint.set_step(progress.step);
    checkpoint.mutable_metrics()->insert(progress.metrics.begin(),
                                         progress.metrics.end());
    ASSIGN_OR_RETURN(
        *checkpoint.mutable_state(),
        context_->Publish(path, "checkpoint.safetensors", kSafetensors));
    return context_->CommitCheckpoint(checkpoint);
  }

 private:
  common::WorkContext* const context_;
};

absl::StatusOr<TuningInputs> FetchInputs(const v1::TuneWork& work,
                                         common::WorkContext* context) {
  TuningInputs inputs;
  ASSIGN_OR_RETURN(inputs.base, context->Fetch(work.base()));
  ASSIGN_OR_RETURN(inputs.train, context->Fetch(work.train()));
  ASSIGN_OR_RETURN(inputs.test, context->Fetch(work.test()));
  if (!work.teacher().sha256().empty()) {
    ASSIGN_OR_RETURN(inputs.teacher, context->Fetch(work.teacher()));
  }
  if (!work.validation().sha256().empty()) {
    ASSIGN_OR_RETURN(inputs.validation, context->Fetch(work.validation()));
  }
  if (!work.probe_text().sha256().empty()) {
    ASSIGN_OR_RETURN(inputs.probe_text, context->Fetch(work.probe_text()));
  }
  const v1::InitialAdapter& adapter = work.tuning_job().initial_adapter();
  if (!adapter.tensors().sha256().empty()) {
    ASSIGN_OR_RETURN(inputs.initial_adapter.tensors,
                     context->Fetch(adapter.tensors()));
  }
  if (!adapter.config().sha256().empty()) {
    ASSIGN_OR_RETURN(inputs.initial_adapter.config,
                     context->Fetch(adapter.config()));
  }
  if (!work.resume_from().state().sha256().empty()) {
    ASSIGN_OR_RETURN(inputs.resume_from,
                     context->Fetch(work.resume_from().state()));
  }
  return inputs;
}

absl::Status PublishOutputs(const TuningOutputs& outputs,
                            common::WorkContext* context,
                            v1::TuningResult* result) {
  if (!outputs.adapter.empty()) {
    ASSIGN_OR_RETURN(
        *result->mutable_adapter(),
        context->Publish(outputs.adapter, "adapter.safetensors", kSafetensors));
    ASSIGN_OR_RETURN(
        *result->mutable_adapter_config(),
        context->Publish(outputs.adapter_config, "adapter_config.json", kJson));
    *result->mutable_float_adapter() = ToProto(outputs.float_adapter);
  }
  ASSIGN_OR_RETURN(*result->mutable_validation_report(),
                   context->Publish(outputs.validation_report,
                                    "validation_report.json", kJson));
  result->set_best_validation_loss(outputs.best_score);
  result->set_best_step(outputs.best_step);
  ASSIGN_OR_RETURN(
      *result->mutable_metrics_jsonl(),
      context->Publish(outputs.metrics_jsonl, "metrics.jsonl", kJsonl));
  if (!outputs.folded.empty()) {
    ASSIGN_OR_RETURN(
        *result->mutable_folded(),
        context->Publish(outputs.folded, "folded.safetensors", kSafetensors));
    *result->mutable_folded_metrics() = ToProto(outputs.folded_metrics);
    result->set_codes_changed(outputs.codes_changed);
  }
  if (!outputs.probe.empty()) {
    ASSIGN_OR_RETURN(
        *result->mutable_probe_logits(),
        context->Publish(outputs.probe, "probe.safetensors", kSafetensors));
  }
  if (!outputs.served_probe.empty()) {
    ASSIGN_OR_RETURN(
        *result->mutable_served_probe_logits(),
        context->Publish(outputs.served_probe, "probe_served.safetensors",
                         kSafetensors));
  }
  result->set_tokens_per_second(outputs.tokens_per_second);
  return absl::OkStatus();
}

void FillLora(const v1::LoraSpec& lora, TuningOptions* options) {
  SetIfGiven(lora.rank(), &options->rank);
  options->alpha = 2.0 * static_cast<double>(options->rank);
  SetIfGiven(lora.alpha(), &options->alpha);
  if (options->initial_adapter != InitialAdapter::kNone) {
    options->rank = lora.rank();
    options->alpha = lora.alpha();
  }
  options->dropout = lora.dropout();
  options->target_modules.assign(lora.target_modules().begin(),
                                 lora.target_modules().end());
  for (const v1::LoraPattern& pattern : lora.patterns()) {
    options->lora_patterns.push_back(
        {pattern.modules(), pattern.rank(), pattern.alpha()});
  }
  options->use_rslora = lora.use_rslora();
  SetIfGiven(lora.lora_plus_ratio(), &options->lora_plus_ratio);
}

void FillData(const v1::TuneWork& work, DataOptions* data) {
  // The enum begins with one that says nothing, then as model::DataFormat.
  if (work.format() != v1::DATASET_FORMAT_UNSPECIFIED) {
    data->format = static_cast<model::DataFormat>(work.format() - 1);
  }
  data->drop_invalid = work.drop_invalid();
  data->train_on =
      work.tuning_job().hyperparameters().train_on() == v1::LAST_ANSWER
          ? TrainOn::kLast
          : TrainOn::kAll;
}

TuningMode ModeOf(v1::TuningMode mode) {
  switch (mode) {
    case v1::QLORA:
      return TuningMode::kQlora;
    case v1::QLORA_FOLD:
      return TuningMode::kQloraFold;
    case v1::LR_QAT:
      return TuningMode::kLrQat;
    case v1::PEQA:
      return TuningMode::kPeqa;
    case v1::FULL_QAT:
      return TuningMode::kFullQat;
    default:
      return TuningMode::kQloraQat;
  }
}

// A weight: 0 means 1, a negative one 0.
double WeightOf(double given) {
  if (given == 0) return 1;
  return given < 0 ? 0 : given;
}

void FillGrid(const v1::TuningJob& job, TuningOptions* options) {
  const v1::GridSpec& grid = job.grid();
  options->grid.polish_steps = grid.polish_steps();
  SetIfGiven(grid.polish_ratio(), &options->grid.polish_ratio);
  options->grid.scale_learning_rate = grid.scale_learning_rate();
  options->grid.weight_learning_rate = grid.weight_learning_rate();
  options->grid.rank = grid.rank();
  options->grid.plan = grid.plan();
  options->grid.as_served = !grid.float_activations();
  options->distillation = {WeightOf(job.distillation().cross_entropy_weight()),
                           WeightOf(job.distillation().kl_weight()),
                           job.distillation().top(),
                           job.distillation().vocabulary_top()};
}

}  // namespace

absl::StatusOr<TuningOptions> OptionsFromWork(const v1::TuneWork& work,
                                              int threads) {
  const v1::TuningJob& job = work.tuning_job();
  const v1::Hyperparameters& given = job.hyperparameters();
  TuningOptions options;
  if (job.has_initial_adapter()) {
    options.initial_adapter = job.initial_adapter().keep()
                                  ? InitialAdapter::kKeep
                                  : InitialAdapter::kLearn;
  }
  FillLora(job.lora(), &options);
  FillData(work, &options.data);
  options.max_steps = given.max_steps();
  options.max_examples = given.max_examples();
  SetIfGiven(given.epochs(), &options.epochs);
  SetIfGiven(given.sequence_tokens(), &options.sequence_tokens);
  SetIfGiven(given.sequences_per_step(), &options.sequences_per_step);
  SetIfGiven(given.learning_rate(), &options.learning_rate);
  SetIfGiven(given.warmup_ratio(), &options.warmup_ratio);
  SetIfGiven(given.max_grad_norm(), &options.max_grad_norm);
  options.weight_decay = given.weight_decay();
  SetIfGiven(given.checkpoint_steps(), &options.checkpoint_steps);
  SetIfGiven(given.fold_examples(), &options.fold_examples);
  options.threads = given.threads() > 0 ? given.threads() : threads;
  if (given.precision() == v1::Hyperparameters::PRECISION_F32) {
    options.precision = Precision::kF32;
  } else if (given.precision() == v1::Hyperparameters::PRECISION_BF16) {
    options.precision = Precision::kBf16;
  }
  options.seed = static_cast<uint64_t>(job.seed());
  options.mode = ModeOf(job.mode());
  FillGrid(job, &options);
  options.eval_steps = given.eval_steps();
  SetIfGiven(given.eval_examples(), &options.eval_examples);
  options.patience = given.early_stopping_patience();
  options.max_eval_examples = work.max_eval_examples();
  SetIfGiven(work.probe_tokens(), &options.probe_tokens);
  options.probe_as_served = true;
  SetIfGiven(BaseName(job.base_model()), &options.base_model_name);
  RETURN_IF_ERROR(ValidateOptions(options));
  return options;
}

absl::StatusOr<v1::WorkResult> Tune(common::WorkContext& context, int threads) {
  const v1::TuneWork& work = context.item().tune();
  ASSIGN_OR_RETURN(const TuningOptions options, OptionsFromWork(work, threads));
  ASSIGN_OR_RETURN(const TuningInputs inputs, FetchInputs(work, &context));
  WorkHost host(&context);
  ASSIGN_OR_RETURN(const TuningOutputs outputs,
                   RunTuning(inputs, options, context.scratch_dir(), &host));
  v1::WorkResult result;
  RETURN_IF_ERROR(PublishOutputs(outputs, &context, result.mutable_tune()));
  return result;
}

}  // namespace onegrid::finetuner
