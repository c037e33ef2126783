#include "services/exporter/export_work.h"

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/common/error_info.h"
#include "services/exporter/export_files.h"
#include "services/exporter/importer.h"

namespace onegrid::exporter {
namespace {

// Reports each step with an estimate from the pace of the stage so far, and
// stops the work when it is cancelled.
class Reporter {
 public:
  explicit Reporter(common::WorkContext& context) : context_(context) {}

  absl::Status operator()(absl::string_view stage, int64_t done,
                          int64_t total) {
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
    context_.ReportProgress(progress);
    return absl::OkStatus();
  }

 private:
  common::WorkContext& context_;
  std::string stage_;
  absl::Time start_;
};

std::string MediaType(const std::string& file) {
  if (absl::EndsWith(file, ".gguf")) return "application/x-gguf";
  if (absl::EndsWith(file, ".safetensors")) return "application/x-safetensors";
  if (absl::EndsWith(file, ".json")) return "application/json";
  if (absl::EndsWith(file, ".md")) return "text/markdown";
  return "application/octet-stream";
}

absl::StatusOr<v1::WorkResult> Import(common::WorkContext& context,
                                      int threads) {
  const v1::BaseModel& base_model = context.item().import().base_model();
  if (base_model.grid() != v1::INT4_G32 &&
      base_model.grid() != v1::GRID_UNSPECIFIED) {
    return common::MakeError(absl::StatusCode::kInvalidArgument,
                             "UNSUPPORTED_GRID",
                             absl::StrCat("an import writes INT4_G32, not ",
                                          v1::Grid_Name(base_model.grid())));
  }
  ASSIGN_OR_RETURN(const std::string source,
                   context.Fetch(base_model.source()));
  const std::string out = absl::StrCat(context.scratch_dir(), "/base.gguf");
  v1::WorkResult result;
  v1::BaseModel* imported = result.mutable_import();
  ASSIGN_OR_RETURN(*imported->mutable_report(),
                   ImportGguf(source, out, {threads, Reporter(context)}));
  ASSIGN_OR_RETURN(*imported->mutable_model(),
                   context.Publish(out, "base-int4.gguf", MediaType(out)));
  return result;
}

// The local inputs that the work item names.
absl::StatusOr<ExportInputs> FetchInputs(common::WorkContext& context) {
  const v1::ExportWork& work = context.item().export_();
  ExportInputs inputs;
  inputs.base_name = work.base_name();
  inputs.origin = work;
  for (const int format : work.export_().formats()) {
    inputs.formats.push_back(static_cast<v1::ExportFormat>(format));
  }
  inputs.max_shard_bytes = work.export_().max_shard_bytes();
  ASSIGN_OR_RETURN(inputs.base, context.Fetch(work.base()));
  if (!work.tuned().adapter().sha256().empty()) {
    ASSIGN_OR_RETURN(inputs.adapter, context.Fetch(work.tuned().adapter()));
    ASSIGN_OR_RETURN(inputs.adapter_config,
                     context.Fetch(work.tuned().adapter_config()));
  }
  if (work.tuned().has_folded()) {
    ASSIGN_OR_RETURN(inputs.folded, context.Fetch(work.tuned().folded()));
  }
  return inputs;
}

absl::StatusOr<v1::WorkResult> Export(common::WorkContext& context) {
  ASSIGN_OR_RETURN(const ExportInputs inputs, FetchInputs(context));
  Reporter report(context);
  ASSIGN_OR_RETURN(
      ExportOutputs outputs,
      ExportFiles(inputs, context.scratch_dir(), std::ref(report)));
  int64_t total = 0;
  for (const WrittenFormat& written : outputs.formats) {
    total += static_cast<int64_t>(written.files.size());
  }
  v1::WorkResult result;
  int64_t done = 0;
  for (const WrittenFormat& written : outputs.formats) {
    v1::ExportedArtifact* artifact = result.mutable_export_()->add_artifacts();
    artifact->set_format(written.format);
    for (const std::string& file : written.files) {
      RETURN_IF_ERROR(report("upload", done++, total));
      ASSIGN_OR_RETURN(*artifact->add_files(),
                       context.Publish(absl::StrCat(written.folder, "/", file),
                                       file, MediaType(file)));
    }
  }
  *result.mutable_export_()->mutable_equivalence() =
      std::move(outputs.equivalence);
  return result;
}

}  // namespace

absl::StatusOr<v1::WorkResult> HandleWork(common::WorkContext& context,
                                          int threads) {
  switch (context.item().kind()) {
    case v1::IMPORT:
      return Import(context, threads);
    case v1::EXPORT:
      return Export(context);
    default:
      return common::MakeError(
          absl::StatusCode::kInvalidArgument, "UNSUPPORTED_WORK",
          absl::StrCat("the exporter does not do work of kind ",
                       v1::WorkKind_Name(context.item().kind())));
  }
}

}  // namespace onegrid::exporter
