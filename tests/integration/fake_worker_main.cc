// Stands in for finetuner, exporter and evaluator where a test is about the
// controller: does no tensor work, but takes time, commits checkpoints and
// goes on from them. What it is follows from the name it is started under.
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/grpcpp.h"
#include "proto/onegrid/v1/generation.grpc.pb.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/grpc_status.h"
#include "services/common/worker.h"

ABSL_FLAG(std::string, controller, "", "host:port of the controller.");
ABSL_FLAG(std::string, cache_dir, "", "Folder for blobs and scratch files.");
ABSL_FLAG(std::string, worker_name, "", "Name of this process.");
ABSL_FLAG(int, port, 0, "Port of the health service.");
ABSL_FLAG(std::string, port_file, "", "File that gets host:port.");

namespace onegrid {
namespace {

// A tuning job of this many steps, each with a checkpoint.
constexpr int kSteps = 40;
constexpr absl::Duration kStepTime = absl::Milliseconds(50);

absl::StatusOr<v1::ArtifactRef> PublishText(common::WorkContext& context,
                                            const std::string& text,
                                            const std::string& name) {
  const std::string path = absl::StrCat(context.scratch_dir(), "/", name);
  RETURN_IF_ERROR(common::WriteFileAtomic(path, text));
  return context.Publish(path, name, "text/plain");
}

absl::StatusOr<v1::WorkResult> Import(common::WorkContext& context) {
  const v1::BaseModel& base = context.item().import().base_model();
  ASSIGN_OR_RETURN(const std::string path, context.Fetch(base.source()));
  ASSIGN_OR_RETURN(const std::string source, common::ReadFile(path));
  if (source == "corrupt") {
    return common::MakeError(absl::StatusCode::kInvalidArgument, "CORRUPT_FILE",
                             "the source is corrupt");
  }
  v1::WorkResult result;
  ASSIGN_OR_RETURN(*result.mutable_import()->mutable_model(),
                   PublishText(context, "on grid: " + source, "base.gguf"));
  return result;
}

// The step to go on from.
absl::StatusOr<int> FirstStep(common::WorkContext& context) {
  if (!context.item().tune().has_resume_from()) return 0;
  ASSIGN_OR_RETURN(const std::string path,
                   context.Fetch(context.item().tune().resume_from().state()));
  ASSIGN_OR_RETURN(const std::string text, common::ReadFile(path));
  int step = 0;
  if (!absl::SimpleAtoi(text, &step)) {
    return absl::DataLossError(absl::StrCat("checkpoint says ", text));
  }
  return step;
}

absl::StatusOr<v1::WorkResult> Tune(common::WorkContext& context) {
  ASSIGN_OR_RETURN(const int first_step, FirstStep(context));
  for (int step = first_step; step < kSteps; ++step) {
    if (context.cancelled()) return absl::AbortedError("told to stop");
    absl::SleepFor(kStepTime);
    v1::Progress progress;
    progress.set_stage("learn");
    progress.set_step(step + 1);
    progress.set_total_steps(kSteps);
    context.ReportProgress(progress);
    v1::Checkpoint checkpoint;
    checkpoint.set_stage("learn");
    checkpoint.set_step(step + 1);
    (*checkpoint.mutable_metrics())["pid"] = ::getpid();
    ASSIGN_OR_RETURN(*checkpoint.mutable_state(),
                     PublishText(context, absl::StrCat(step + 1), "state"));
    RETURN_IF_ERROR(context.CommitCheckpoint(checkpoint));
  }
  v1::WorkResult result;
  v1::TuningResult* tuned = result.mutable_tune();
  ASSIGN_OR_RETURN(*tuned->mutable_folded(),
                   PublishText(context, "folded", "folded"));
  ASSIGN_OR_RETURN(*tuned->mutable_probe_logits(),
                   PublishText(context, "probe", "probe"));
  // Tells the test where this attempt began.
  tuned->set_codes_changed(first_step);
  return result;
}

absl::StatusOr<v1::WorkResult> Export(common::WorkContext& context) {
  v1::WorkResult result;
  v1::ExportedArtifact* gguf = result.mutable_export_()->add_artifacts();
  gguf->set_format(v1::GGUF);
  ASSIGN_OR_RETURN(*gguf->add_files(),
                   PublishText(context, "tuned", "tuned.gguf"));
  result.mutable_export_()->mutable_equivalence()->set_tensors(1);
  result.mutable_export_()->mutable_equivalence()->set_tensors_bit_exact(1);
  return result;
}

// An error unless the server serves the artifact in the way asked for.
absl::Status CheckServer(const std::string& endpoint, const std::string& sha256,
                         const std::string& activations) {
  const auto stub = v1::GenerationService::NewStub(
      grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::ServerInfo info;
  RETURN_IF_ERROR(common::FromGrpc(stub->GetServerInfo(&context, {}, &info)));
  if (info.artifact_sha256() == sha256 && info.activations() == activations) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the server at ", endpoint, " is another one"));
}

absl::StatusOr<v1::WorkResult> Evaluate(common::WorkContext& context) {
  const v1::EvaluateWork& work = context.item().evaluate();
  RETURN_IF_ERROR(
      CheckServer(work.served_endpoint(), work.artifact_sha256(), "int8"));
  v1::WorkResult result;
  v1::Evaluation* out = result.mutable_evaluate();
  if (work.evaluation().kind() == v1::TASK) {
    out->mutable_metrics()->set_accuracy(90);
    return result;
  }
  RETURN_IF_ERROR(
      CheckServer(work.float_endpoint(), work.artifact_sha256(), "f32"));
  *out->mutable_equivalence() = work.level1();
  out->mutable_equivalence()->set_verdict(v1::EquivalenceReport::PASSED);
  return result;
}

absl::StatusOr<v1::WorkResult> Work(common::WorkContext& context) {
  switch (context.item().kind()) {
    case v1::IMPORT:
      return Import(context);
    case v1::TUNE:
      return Tune(context);
    case v1::EXPORT:
      return Export(context);
    default:
      return Evaluate(context);
  }
}

}  // namespace
}  // namespace onegrid

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  onegrid::common::WorkerOptions options;
  options.controller = absl::GetFlag(FLAGS_controller);
  options.cache_dir = absl::GetFlag(FLAGS_cache_dir);
  options.worker_name = absl::GetFlag(FLAGS_worker_name);
  options.server.port = absl::GetFlag(FLAGS_port);
  options.server.port_file = absl::GetFlag(FLAGS_port_file);
  const std::string name = std::filesystem::path(argv[0]).filename();
  if (name == "finetuner") options.kinds = {onegrid::v1::TUNE};
  if (name == "exporter") {
    options.kinds = {onegrid::v1::IMPORT, onegrid::v1::EXPORT};
  }
  if (name == "evaluator") options.kinds = {onegrid::v1::EVALUATE};
  return onegrid::common::RunWorker(options, onegrid::Work);
}
