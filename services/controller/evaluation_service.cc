#include "services/controller/evaluation_service.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/onegrid/v1/dataset.pb.h"
#include "proto/onegrid/v1/tuning.pb.h"
#include "services/common/error_info.h"
#include "services/controller/dataset_split.h"
#include "services/controller/model_lookup.h"

namespace onegrid::controller {
namespace {

absl::Status CheckTask(StoreTransaction& transaction,
                       const v1::Evaluation& evaluation) {
  ASSIGN_OR_RETURN(const v1::Dataset dataset,
                   Load<v1::Dataset>(transaction, evaluation.dataset()));
  if (evaluation.split() != "train" && evaluation.split() != "validation" &&
      evaluation.split() != "test") {
    return InvalidField("split", evaluation.split(),
                        "train, validation or test");
  }
  if (evaluation.max_examples() < 0) {
    return InvalidField("max_examples", absl::StrCat(evaluation.max_examples()),
                        "0 or more");
  }
  return CheckScorable(dataset, evaluation.split());
}

absl::Status CheckEquivalence(StoreTransaction& transaction,
                              const v1::Evaluation& evaluation) {
  if (!absl::StartsWith(evaluation.model(), "exports/")) {
    return InvalidField("model", evaluation.model(),
                        "exports/{id} for kind EQUIVALENCE");
  }
  ASSIGN_OR_RETURN(const v1::Export made,
                   Load<v1::Export>(transaction, evaluation.model()));
  ASSIGN_OR_RETURN(const v1::TuningJob job,
                   Load<v1::TuningJob>(transaction, made.tuning_job()));
  if (job.result().has_probe_logits()) return absl::OkStatus();
  return common::MakeError(
      absl::StatusCode::kFailedPrecondition, "NO_PROBE",
      absl::StrCat(job.name(), " has no probe logits: its mode was QLORA"),
      {{"tuning_job", job.name()}});
}

}  // namespace

absl::StatusOr<v1::Evaluation> EvaluationService::CreateEvaluation(
    const v1::CreateEvaluationRequest& request, const std::string& parent) {
  CreateCall call;
  call.id = request.evaluation_id();
  call.request_id = request.request_id();
  call.request = &request;
  call.parent = parent;
  call.is_job = true;
  call.kind = v1::EVALUATE;
  return Create<v1::Evaluation>(
      *context_, call,
      [&](StoreTransaction& transaction) -> absl::StatusOr<v1::Evaluation> {
        const v1::Evaluation& in = request.evaluation();
        v1::Evaluation evaluation;
        evaluation.set_kind(in.kind());
        evaluation.set_model(in.model());
        RETURN_IF_ERROR(FindGguf(transaction, in.model()).status());
        if (in.kind() == v1::TASK) {
          evaluation.set_dataset(in.dataset());
          evaluation.set_split(in.split().empty() ? "test" : in.split());
          evaluation.set_max_examples(in.max_examples());
          RETURN_IF_ERROR(CheckTask(transaction, evaluation));
        } else if (in.kind() == v1::EQUIVALENCE) {
          RETURN_IF_ERROR(CheckEquivalence(transaction, evaluation));
        } else {
          return InvalidField("kind", v1::EvaluationKind_Name(in.kind()),
                              "TASK or EQUIVALENCE");
        }
        return evaluation;
      });
}

absl::StatusOr<v1::Evaluation> EvaluationService::GetEvaluation(
    const v1::GetEvaluationRequest& request) {
  return Get<v1::Evaluation>(*context_, request.name());
}

absl::StatusOr<v1::ListEvaluationsResponse> EvaluationService::ListEvaluations(
    const v1::ListEvaluationsRequest& request) {
  v1::ListEvaluationsResponse response;
  ASSIGN_OR_RETURN(
      *response.mutable_next_page_token(),
      List<v1::Evaluation>(*context_, request.page_size(), request.page_token(),
                           [&] { return response.add_evaluations(); }));
  return response;
}

}  // namespace onegrid::controller
