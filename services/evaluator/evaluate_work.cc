#include "services/evaluator/evaluate_work.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/common/error_info.h"
#include "services/evaluator/engine_client.h"
#include "services/evaluator/equivalence_eval.h"
#include "services/evaluator/probe_file.h"
#include "services/evaluator/task_eval.h"
#include "services/model/jsonl_dataset.h"

namespace onegrid::evaluator {
namespace {

// Reports progress with an estimate from the stage's pace so far, and stops
// the work when it is cancelled.
class Reporter {
 public:
  explicit Reporter(common::WorkContext& context) : context_(context) {}

  absl::Status operator()(absl::string_view stage, int64_t done, int64_t total,
                          const v1::ModelMetrics* so_far) {
    if (context_.cancelled()) {
      return common::MakeError(absl::StatusCode::kAborted, "CANCELLED",
                               "the work was cancelled");
    }
    if (stage != stage_) {
      stage_ = std::string(stage);
      start_ = absl::Now();
    }
    v1::Progress progress;
    progress.set_stage(stage_);
    progress.set_step(done);
    progress.set_total_steps(total);
    if (done > 0) {
      const absl::Duration eta = (absl::Now() - start_) * (total - done) / done;
      progress.mutable_eta()->set_seconds(absl::ToInt64Seconds(eta));
    }
    if (so_far != nullptr) {
      (*progress.mutable_metrics())["accuracy"] = so_far->accuracy();
      (*progress.mutable_metrics())["perplexity"] = so_far->perplexity();
    }
    context_.ReportProgress(progress);
    return absl::OkStatus();
  }

 private:
  common::WorkContext& context_;
  std::string stage_;
  absl::Time start_ = absl::Now();
};

// A client of a server that serves the artifact of the work item.
absl::StatusOr<v1::ServerInfo> CheckServer(EngineClient& engine,
                                           const v1::EvaluateWork& work) {
  ASSIGN_OR_RETURN(v1::ServerInfo info, engine.Info());
  RETURN_IF_ERROR(
      CheckArtifact(info, engine.endpoint(), work.artifact_sha256()));
  return info;
}

absl::StatusOr<v1::WorkResult> Task(common::WorkContext& context,
                                    int in_flight) {
  const v1::EvaluateWork& work = context.item().evaluate();
  ASSIGN_OR_RETURN(const std::string split, context.Fetch(work.split()));
  ASSIGN_OR_RETURN(std::vector<model::Example> examples,
                   model::ReadJsonl(split));
  const int64_t max_examples = work.evaluation().max_examples();
  if (max_examples > 0 &&
      max_examples < static_cast<int64_t>(examples.size())) {
    examples.resize(max_examples);
  }
  EngineClient engine(work.served_endpoint());
  ASSIGN_OR_RETURN(const v1::ServerInfo info, CheckServer(engine, work));
  const EvalProgressFn progress = Reporter(context);
  v1::WorkResult result;
  v1::Evaluation* evaluation = result.mutable_evaluate();
  ASSIGN_OR_RETURN(*evaluation->mutable_metrics(),
                   EvaluateTask(engine, examples, {in_flight, progress}));
  ASSIGN_OR_RETURN(const Speeds speeds,
                   MeasureSpeeds(engine, examples, progress));
  evaluation->set_prefill_tokens_per_second(speeds.prefill_tokens_per_second);
  evaluation->set_decode_tokens_per_second(speeds.decode_tokens_per_second);
  evaluation->set_engine(DescribeEngine(info));
  return result;
}

absl::StatusOr<v1::WorkResult> Equivalence(common::WorkContext& context) {
  const v1::EvaluateWork& work = context.item().evaluate();
  ASSIGN_OR_RETURN(const std::string path, context.Fetch(work.probe_logits()));
  ASSIGN_OR_RETURN(const auto probe, ProbeFile::Open(path));
  EngineClient float_engine(work.float_endpoint());
  EngineClient served_engine(work.served_endpoint());
  RETURN_IF_ERROR(CheckServer(float_engine, work).status());
  ASSIGN_OR_RETURN(const v1::ServerInfo info, CheckServer(served_engine, work));
  const EvalProgressFn progress = Reporter(context);
  v1::WorkResult result;
  v1::EquivalenceReport report = work.level1();
  report.set_probe_tokens(probe->positions());
  ASSIGN_OR_RETURN(
      *report.mutable_float_engine(),
      CompareLogits(float_engine, *probe, "equivalence float", progress));
  ASSIGN_OR_RETURN(
      *report.mutable_served_engine(),
      CompareLogits(served_engine, *probe, "equivalence served", progress));
  if (work.has_served_probe_logits()) {
    ASSIGN_OR_RETURN(const std::string as_served,
                     context.Fetch(work.served_probe_logits()));
    ASSIGN_OR_RETURN(const auto served_probe, ProbeFile::Open(as_served));
    ASSIGN_OR_RETURN(*report.mutable_served_arithmetic(),
                     CompareLogits(served_engine, *served_probe,
                                   "equivalence served arithmetic", progress));
  }
  report.set_verdict(
      Judge(report, {work.kl_float(), work.top1_float(), work.kl_served(),
                     work.top1_served(), work.kl_served_arithmetic()}));
  result.mutable_evaluate()->set_engine(DescribeEngine(info));
  *result.mutable_evaluate()->mutable_equivalence() = std::move(report);
  return result;
}

}  // namespace

absl::StatusOr<v1::WorkResult> HandleWork(common::WorkContext& context,
                                          int in_flight) {
  if (context.item().kind() != v1::EVALUATE) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "UNSUPPORTED_WORK",
        absl::StrCat("the evaluator does not do work of kind ",
                     v1::WorkKind_Name(context.item().kind())));
  }
  switch (context.item().evaluate().evaluation().kind()) {
    case v1::TASK:
      return Task(context, in_flight);
    case v1::EQUIVALENCE:
      return Equivalence(context);
    default:
      return common::MakeError(absl::StatusCode::kInvalidArgument,
                               "UNSUPPORTED_WORK",
                               "the evaluation's kind is not known");
  }
}

}  // namespace onegrid::evaluator
