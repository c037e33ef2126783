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
  if (!work.validation().sha256().empty()) {
    ASSIGN_OR_RETURN(inputs.validation, context->Fetch(work.validation()));
  }
  if (!work.probe_text().sha256().empty()) {
    ASSIGN_OR_RETURN(inputs.probe_text, context->Fetch(work.probe_text()));
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
  ASSIGN_OR_RETURN(
      *result->mutable_adapter(),
      context->Publish(outputs.adapter, "adapter.safetensors", kSafetensors));
  ASSIGN_OR_RETURN(
      *result->mutable_adapter_config(),
      context->Publish(outputs.adapter_config, "adapter_config.json", kJson));
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
  *result->mutable_float_adapter() = ToProto(outputs.float_adapter);
  result->set_tokens_per_second(outputs.tokens_per_second);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TuningOptions> OptionsFromWork(const v1::TuneWork& work,
                                              int threads) {
  const v1::TuningJob& job = work.tuning_job();
  const v1::Hyperparameters& given = job.hyperparameters();
  TuningOptions options;
  SetIfGiven(job.lora().rank(), &options.rank);
  options.alpha = 2.0 * static_cast<double>(options.rank);
  SetIfGiven(job.lora().alpha(), &options.alpha);
  options.dropout = job.lora().dropout();
  options.target_modules.assign(job.lora().target_modules().begin(),
                                job.lora().target_modules().end());
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
  options.fold = job.mode() != v1::QLORA;
  options.max_eval_examples = work.max_eval_examples();
  SetIfGiven(work.probe_tokens(), &options.probe_tokens);
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
