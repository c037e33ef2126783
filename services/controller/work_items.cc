#include "services/controller/work_items.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/onegrid/v1/dataset.pb.h"
#include "services/common/error_info.h"
#include "services/controller/dataset_split.h"
#include "services/controller/model_lookup.h"
#include "services/controller/registry.h"

namespace onegrid::controller {
namespace {

constexpr int kProbeTokensDefault = 1500;

// The pipeline run that made the resource; an empty one if none did.
absl::StatusOr<v1::PipelineRun> ParentOf(StoreTransaction& transaction,
                                         const std::string& name) {
  ASSIGN_OR_RETURN(const std::optional<ResourceRow> row,
                   transaction.Find(name));
  if (!row.has_value() || row->parent.empty()) return v1::PipelineRun();
  return Load<v1::PipelineRun>(transaction, row->parent);
}

absl::Status FillTune(StoreTransaction& transaction, const v1::TuningJob& job,
                      v1::TuneWork* work) {
  ASSIGN_OR_RETURN(const v1::BaseModel base,
                   Load<v1::BaseModel>(transaction, job.base_model()));
  ASSIGN_OR_RETURN(const v1::Dataset dataset,
                   Load<v1::Dataset>(transaction, job.dataset()));
  ASSIGN_OR_RETURN(const v1::PipelineRun run,
                   ParentOf(transaction, job.name()));
  *work->mutable_tuning_job() = job;
  *work->mutable_base() = base.model();
  *work->mutable_train() = dataset.train().artifact();
  *work->mutable_validation() = dataset.validation().artifact();
  *work->mutable_test() = dataset.test().artifact();
  if (!job.distillation().teacher().empty()) {
    ASSIGN_OR_RETURN(
        const v1::BaseModel teacher,
        Load<v1::BaseModel>(transaction, job.distillation().teacher()));
    *work->mutable_teacher() = teacher.model();
  }
  work->set_format(dataset.format());
  work->set_drop_invalid(dataset.drop_invalid());
  if (job.has_last_checkpoint()) {
    *work->mutable_resume_from() = job.last_checkpoint();
  }
  if (run.has_probe_text()) {
    *work->mutable_probe_text() = run.probe_text();
    work->set_probe_tokens(run.probe_tokens() > 0 ? run.probe_tokens()
                                                  : kProbeTokensDefault);
  }
  work->set_max_eval_examples(run.max_eval_examples());
  return absl::OkStatus();
}

absl::Status FillExport(StoreTransaction& transaction, const v1::Export& made,
                        v1::ExportWork* work) {
  ASSIGN_OR_RETURN(const v1::TuningJob job,
                   Load<v1::TuningJob>(transaction, made.tuning_job()));
  ASSIGN_OR_RETURN(const v1::BaseModel base,
                   Load<v1::BaseModel>(transaction, job.base_model()));
  *work->mutable_export_() = made;
  *work->mutable_base() = base.model();
  work->set_base_name(
      std::string(absl::StripPrefix(base.name(), "baseModels/")));
  *work->mutable_lora() = job.lora();
  *work->mutable_tuned() = job.result();
  *work->mutable_base_model() = base;
  *work->mutable_tuning_job() = job;
  // A dataset may be deleted once its jobs have ended.
  const absl::StatusOr<v1::Dataset> dataset =
      Load<v1::Dataset>(transaction, job.dataset());
  if (dataset.ok()) *work->mutable_dataset() = *dataset;
  return absl::OkStatus();
}

absl::Status FillEvaluate(StoreTransaction& transaction,
                          const v1::Evaluation& evaluation,
                          const EvaluationServers& servers,
                          v1::EvaluateWork* work) {
  *work->mutable_evaluation() = evaluation;
  work->set_served_endpoint(servers.served_endpoint);
  ASSIGN_OR_RETURN(const std::vector<v1::ArtifactRef> gguf,
                   FindGguf(transaction, evaluation.model()));
  work->set_artifact_sha256(ModelSha256(gguf));
  if (evaluation.kind() == v1::TASK) {
    ASSIGN_OR_RETURN(const v1::Dataset dataset,
                     Load<v1::Dataset>(transaction, evaluation.dataset()));
    *work->mutable_split() = SplitOf(dataset, evaluation.split()).artifact();
    return absl::OkStatus();
  }
  work->set_float_endpoint(servers.float_endpoint);
  ASSIGN_OR_RETURN(const v1::Export made,
                   Load<v1::Export>(transaction, evaluation.model()));
  ASSIGN_OR_RETURN(const v1::TuningJob job,
                   Load<v1::TuningJob>(transaction, made.tuning_job()));
  *work->mutable_probe_logits() = job.result().probe_logits();
  if (job.result().has_served_probe_logits()) {
    *work->mutable_served_probe_logits() = job.result().served_probe_logits();
  }
  *work->mutable_level1() = made.equivalence();
  ASSIGN_OR_RETURN(const v1::PipelineRun run,
                   ParentOf(transaction, evaluation.name()));
  const v1::EquivalenceThresholds bounds = CompleteThresholds(run.thresholds());
  work->set_kl_float(bounds.kl_float());
  work->set_top1_float(bounds.top1_float());
  work->set_kl_served(bounds.kl_served());
  work->set_top1_served(bounds.top1_served());
  work->set_kl_served_arithmetic(bounds.kl_served_arithmetic());
  return absl::OkStatus();
}

}  // namespace

v1::EquivalenceThresholds CompleteThresholds(
    const v1::EquivalenceThresholds& thresholds) {
  v1::EquivalenceThresholds out = thresholds;
  if (out.kl_float() == 0) out.set_kl_float(1e-4);
  if (out.top1_float() == 0) out.set_top1_float(0.995);
  if (out.kl_served() == 0) out.set_kl_served(0.005);
  if (out.top1_served() == 0) out.set_top1_served(0.96);
  if (out.kl_served_arithmetic() == 0) out.set_kl_served_arithmetic(1e-5);
  return out;
}

absl::StatusOr<v1::WorkItem> BuildWorkItem(
    StoreTransaction& transaction, const google::protobuf::Message& resource,
    const EvaluationServers& servers) {
  v1::WorkItem item;
  if (const auto* base = dynamic_cast<const v1::BaseModel*>(&resource)) {
    item.set_kind(v1::IMPORT);
    *item.mutable_import()->mutable_base_model() = *base;
  } else if (const auto* job = dynamic_cast<const v1::TuningJob*>(&resource)) {
    item.set_kind(v1::TUNE);
    RETURN_IF_ERROR(FillTune(transaction, *job, item.mutable_tune()));
  } else if (const auto* made = dynamic_cast<const v1::Export*>(&resource)) {
    item.set_kind(v1::EXPORT);
    RETURN_IF_ERROR(FillExport(transaction, *made, item.mutable_export_()));
  } else if (const auto* evaluation =
                 dynamic_cast<const v1::Evaluation*>(&resource)) {
    item.set_kind(v1::EVALUATE);
    RETURN_IF_ERROR(FillEvaluate(transaction, *evaluation, servers,
                                 item.mutable_evaluate()));
  } else {
    return absl::InternalError(
        absl::StrCat(NameOf(resource), " is not work for a worker"));
  }
  return item;
}

}  // namespace onegrid::controller
