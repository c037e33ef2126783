#include "client/cli/run_pipeline.h"

#include <filesystem>
#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "client/cli/connection.h"
#include "client/cli/generate.h"
#include "client/cli/report.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::cli {
namespace {

constexpr int kAnswerTokens = 16;

// Numbered headings: "[2/6] dataset".
class Steps {
 public:
  Steps(const ProgressSink& sink, int count)
      : sink_(sink), count_(count), start_(absl::Now()) {}
  void Begin(const std::string& title) {
    *sink_.out << absl::StreamFormat(
                      "[%d/%d] %s (%.0f s)", ++index_, count_, title,
                      absl::ToDoubleSeconds(absl::Now() - start_))
               << std::endl;
  }

 private:
  const ProgressSink& sink_;
  const int count_;
  const absl::Time start_;
  int index_ = 0;
};

// The run of this file: created, or found if an earlier call created it.
absl::StatusOr<v1::PipelineRun> CreateRun(Api& api, const PipelineFile& file,
                                          const v1::BaseModel& base,
                                          const v1::Dataset& dataset,
                                          const ProgressSink& sink) {
  const std::string name = absl::StrCat("pipelineRuns/", file.name);
  v1::GetPipelineRunRequest get;
  get.set_name(name);
  absl::StatusOr<v1::PipelineRun> existing =
      Call(*api.pipelines, &v1::PipelineService::Stub::GetPipelineRun, get);
  if (existing.ok()) {
    *sink.out << "  going on with " << name << std::endl;
    return existing;
  }
  v1::CreatePipelineRunRequest create;
  create.set_pipeline_run_id(file.name);
  create.set_request_id(NewRequestId());
  v1::PipelineRun* run = create.mutable_pipeline_run();
  *run = file.run;
  run->mutable_tuning_job()->set_base_model(base.name());
  run->mutable_tuning_job()->set_dataset(dataset.name());
  if (!file.probe_text_path.empty()) {
    ASSIGN_OR_RETURN(*run->mutable_probe_text(),
                     Upload(api, file.probe_text_path, "text/plain", sink));
  }
  if (!file.adapter_path.empty()) {
    v1::TuningJob* job = run->mutable_tuning_job();
    ASSIGN_OR_RETURN(*job->mutable_initial_adapter(),
                     UploadAdapter(api, file.adapter_path, sink));
    job->mutable_initial_adapter()->set_keep(file.keep_adapter);
  }
  return Call(*api.pipelines, &v1::PipelineService::Stub::CreatePipelineRun,
              create);
}

template <typename Resource>
absl::Status Fetch(Api& api, const v1::PipelineRun& run, const std::string& id,
                   Resource* target) {
  for (const v1::PipelineStep& step : run.steps()) {
    if (step.id() != id || step.resource().empty()) continue;
    ASSIGN_OR_RETURN(const MessagePtr found, GetResource(api, step.resource()));
    target->CopyFrom(*found);
  }
  return absl::OkStatus();
}

absl::Status AnswerPrompts(Api& api, const PipelineFile& file,
                           const v1::PipelineRun& run, std::ostream& out) {
  v1::Deployment deployment;
  RETURN_IF_ERROR(Fetch(api, run, "deploy", &deployment));
  if (deployment.endpoint().empty()) return absl::OkStatus();
  for (const std::string& prompt : file.prompts) {
    v1::GenerateRequest request;
    request.set_text(prompt);
    request.mutable_stopping()->set_max_tokens(kAnswerTokens);
    ASSIGN_OR_RETURN(const Generation answer,
                     Generate(deployment.endpoint(), request, nullptr));
    out << "  > " << absl::StrReplaceAll(prompt, {{"\n", "\n    "}})
        << "\n    =>" << answer.text << std::endl;
  }
  return absl::OkStatus();
}

// Reads what the run's steps found and writes the files it made.
absl::StatusOr<ReportInput> Collect(Api& api, const v1::PipelineRun& run,
                                    const std::string& out_dir) {
  ReportInput input;
  RETURN_IF_ERROR(Fetch(api, run, "tune", &input.tuning_job));
  RETURN_IF_ERROR(Fetch(api, run, "export", &input.exported));
  RETURN_IF_ERROR(Fetch(api, run, "verify", &input.verify));
  RETURN_IF_ERROR(Fetch(api, run, "evaluate_base", &input.base));
  RETURN_IF_ERROR(Fetch(api, run, "evaluate_served", &input.served));
  ASSIGN_OR_RETURN(input.files, DownloadExport(api, input.exported, out_dir));
  return input;
}

}  // namespace

absl::Status RunPipeline(Api& api, const PipelineFile& file,
                         const RunOptions& options, const ProgressSink& sink) {
  const absl::Time start = absl::Now();
  Steps steps(sink, 6);
  steps.Begin(absl::StrCat("import base model ", file.base_model_id));
  ASSIGN_OR_RETURN(const v1::BaseModel base,
                   ImportModel(api, file.base_model_id, file.base_model_path,
                               /*reuse=*/true, sink));
  steps.Begin(absl::StrCat("upload dataset ", file.dataset_id));
  ASSIGN_OR_RETURN(
      const v1::Dataset dataset,
      CreateDataset(api, file.dataset_id,
                    {file.train_path, file.validation_path, file.test_path,
                     file.dataset_format, file.drop_invalid},
                    /*reuse=*/true, sink));
  steps.Begin("tune, export, check equivalence, evaluate, deploy");
  ASSIGN_OR_RETURN(v1::PipelineRun run,
                   CreateRun(api, file, base, dataset, sink));
  RETURN_IF_ERROR(WaitFor(api, run.name(), sink));
  v1::GetPipelineRunRequest get;
  get.set_name(run.name());
  ASSIGN_OR_RETURN(run, Call(*api.pipelines,
                             &v1::PipelineService::Stub::GetPipelineRun, get));
  steps.Begin(absl::StrCat("download the exports to ", options.out_dir));
  ASSIGN_OR_RETURN(ReportInput input, Collect(api, run, options.out_dir));
  steps.Begin("ask the served model");
  RETURN_IF_ERROR(AnswerPrompts(api, file, run, *sink.out));
  input.job_seconds = absl::ToDoubleSeconds(absl::Now() - start);
  steps.Begin("report");
  const nlohmann::json report = MakeReport(input);
  if (options.json) {
    std::cout << report.dump(2) << std::endl;
  } else {
    PrintReport(report, std::cout);
  }
  return common::WriteFileAtomic(absl::StrCat(options.out_dir, "/report.json"),
                                 report.dump(2) + "\n");
}

}  // namespace onegrid::cli
