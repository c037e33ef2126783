// `onegrid`: the command-line client. Flags and wiring only.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/cli/api.h"
#include "client/cli/connection.h"
#include "client/cli/generate.h"
#include "client/cli/input_commands.h"
#include "client/cli/jobs.h"
#include "client/cli/local.h"
#include "client/cli/pipeline_file.h"
#include "client/cli/program.h"
#include "client/cli/resource_commands.h"
#include "client/cli/run_pipeline.h"
#include "services/common/byte_size.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::cli {
namespace {

void AddLocal(CLI::App& app, Program& program) {
  CLI::App* local =
      app.add_subcommand("local", "all services as processes on this machine");
  local->require_subcommand(1);
  auto options = std::make_shared<LocalOptions>();
  CLI::App* up = local->add_subcommand("up", "start the controller");
  up->add_option("--bin-dir", options->bin_dir, "folder of the services");
  up->add_option("--port", options->port, "controller port; 0: a free one")
      ->check(CLI::Range(0, 65535));
  up->add_option("--threads", options->threads, "threads per service");
  up->callback([&program, options] {
    program.action = [&program, options] {
      options->data_dir = program.data_dir;
      return LocalUp(*options, std::cout).status();
    };
  });
  local->add_subcommand("down", "stop it and all its services")
      ->callback([&program] {
        program.action = [&program] {
          return LocalDown(program.data_dir, absl::Minutes(1), std::cout);
        };
      });
  local->add_subcommand("status", "say what runs")->callback([&program] {
    program.action = [&program] {
      return LocalStatus(program.data_dir, program.json, std::cout);
    };
  });
}

void AddTune(CLI::App& app, Program& program) {
  CLI::App* tune = app.add_subcommand("tune", "fine-tune on the grid");
  auto request = std::make_shared<v1::CreateTuningJobRequest>();
  auto flags = std::make_shared<std::map<std::string, std::string>>();
  auto detach = std::make_shared<bool>(false);
  for (const auto& [flag, help] :
       std::map<std::string, std::string>{{"base-model", "baseModels/ID"},
                                          {"dataset", "datasets/ID"},
                                          {"id", "id of the job"}}) {
    tune->add_option("--" + flag, (*flags)[flag], help)->required();
  }
  auto values = std::make_shared<std::vector<std::string>>();
  tune->add_option("--set", *values,
                   "any key of a pipeline file's tune section, as key=value: "
                   "mode, rank, learning_rate, max_examples, seed, ...")
      ->allow_extra_args(false);
  auto adapter = std::make_shared<std::string>();
  auto keep = std::make_shared<bool>(false);
  tune->add_option("--adapter", *adapter,
                   "LoRA to begin with: a PEFT folder, or a GGUF of "
                   "llama.cpp; rank, alpha and targets are its own");
  tune->add_flag("--keep-adapter", *keep,
                 "do not learn: fold and polish the adapter as it is");
  tune->add_flag("--detach", *detach, "return at once");
  tune->callback([=, &program] {
    program.action = [=, &program]() -> absl::Status {
      std::vector<std::string> overrides;
      for (const std::string& value : *values) {
        overrides.push_back("tune." + value);
      }
      // A file's paths begin where it lies, those of flags here.
      if (!adapter->empty()) {
        const std::string path =
            std::filesystem::absolute(*adapter).lexically_normal().string();
        overrides.push_back(absl::StrCat(
            "tune.adapter='", absl::StrReplaceAll(path, {{"'", "''"}}), "'"));
      }
      if (*keep) overrides.push_back("tune.keep_adapter=true");
      // The same keys and checks as in a pipeline file; the rest is filler.
      ASSIGN_OR_RETURN(const PipelineFile file,
                       ParsePipelineFile("{name: x, base_model: {id: x}, "
                                         "dataset: {id: x, train: x, "
                                         "validation: x, test: x}}",
                                         "", overrides));
      ASSIGN_OR_RETURN(const auto api, program.Open());
      v1::TuningJob* spec = request->mutable_tuning_job();
      *spec = file.run.tuning_job();
      if (!file.adapter_path.empty()) {
        ASSIGN_OR_RETURN(
            *spec->mutable_initial_adapter(),
            UploadAdapter(*api, file.adapter_path, program.sink()));
        spec->mutable_initial_adapter()->set_keep(file.keep_adapter);
      }
      spec->set_base_model((*flags)["base-model"]);
      spec->set_dataset((*flags)["dataset"]);
      request->set_tuning_job_id((*flags)["id"]);
      request->set_request_id(NewRequestId());
      ASSIGN_OR_RETURN(
          const v1::TuningJob job,
          Call(*api->tuning, &v1::TuningService::Stub::CreateTuningJob,
               *request));
      return program.Complete(*api, job, *detach);
    };
  });
}

void AddExport(CLI::App& app, Program& program) {
  CLI::App* command =
      app.add_subcommand("export", "write a tuned model's files");
  auto job = std::make_shared<std::string>();
  auto id = std::make_shared<std::string>();
  auto out_dir = std::make_shared<std::string>();
  auto shard_size = std::make_shared<std::string>("0");
  command->add_option("--tuning-job", *job, "tuningJobs/ID")->required();
  command->add_option("--id", *id, "id of the export")->required();
  command->add_option("--out", *out_dir, "also download the files here");
  command->add_option(
      "--max-shard-size", *shard_size,
      "split a merged model into files of at most so much, e.g. "
      "2GB; default: one GGUF, and compressed-tensors of 50GB");
  command->callback([&program, job, id, out_dir, shard_size] {
    program.action = [&program, job, id, out_dir,
                      shard_size]() -> absl::Status {
      v1::CreateExportRequest request;
      ASSIGN_OR_RETURN(const int64_t shard_bytes,
                       common::ParseByteSize(*shard_size));
      request.mutable_export_()->set_max_shard_bytes(shard_bytes);
      ASSIGN_OR_RETURN(const auto api, program.Open());
      request.set_export_id(*id);
      request.set_request_id(NewRequestId());
      request.mutable_export_()->set_tuning_job(*job);
      ASSIGN_OR_RETURN(
          v1::Export made,
          Call(*api->exports, &v1::ExportService::Stub::CreateExport, request));
      RETURN_IF_ERROR(WaitFor(*api, made.name(), program.sink()));
      v1::GetExportRequest get;
      get.set_name(made.name());
      ASSIGN_OR_RETURN(
          made, Call(*api->exports, &v1::ExportService::Stub::GetExport, get));
      if (!out_dir->empty()) {
        RETURN_IF_ERROR(DownloadExport(*api, made, *out_dir).status());
      }
      return program.Print(made);
    };
  });
}

void AddEvaluate(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand(
      "evaluate", "accuracy and perplexity of a served model");
  auto request = std::make_shared<v1::CreateEvaluationRequest>();
  auto text = std::make_shared<std::map<std::string, std::string>>();
  (*text)["split"] = "test";
  auto examples = std::make_shared<int64_t>(0);
  command->add_option("--model", (*text)["model"], "baseModels/ID, exports/ID")
      ->required();
  command->add_option("--dataset", (*text)["dataset"], "datasets/ID")
      ->required();
  command->add_option("--split", (*text)["split"], "train, validation or test");
  command->add_option("--id", (*text)["id"], "id of the evaluation")
      ->required();
  command->add_option("--max-examples", *examples, "0: the whole split");
  command->callback([&program, request, text, examples] {
    program.action = [&program, request, text, examples]() -> absl::Status {
      ASSIGN_OR_RETURN(const auto api, program.Open());
      v1::Evaluation* evaluation = request->mutable_evaluation();
      evaluation->set_kind(v1::TASK);
      evaluation->set_model((*text)["model"]);
      evaluation->set_dataset((*text)["dataset"]);
      evaluation->set_split((*text)["split"]);
      evaluation->set_max_examples(*examples);
      request->set_evaluation_id((*text)["id"]);
      request->set_request_id(NewRequestId());
      ASSIGN_OR_RETURN(
          const v1::Evaluation made,
          Call(*api->evaluations,
               &v1::EvaluationService::Stub::CreateEvaluation, *request));
      return program.Complete(*api, made, /*detach=*/false);
    };
  });
}

void AddDeploy(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand("deploy", "serve a model");
  auto model = std::make_shared<std::string>();
  auto id = std::make_shared<std::string>();
  command->add_option("--model", *model, "baseModels/ID or exports/ID")
      ->required();
  command->add_option("--id", *id, "id of the deployment")->required();
  command->callback([&program, model, id] {
    program.action = [&program, model, id]() -> absl::Status {
      ASSIGN_OR_RETURN(const auto api, program.Open());
      v1::CreateDeploymentRequest request;
      request.set_deployment_id(*id);
      request.set_request_id(NewRequestId());
      request.mutable_deployment()->set_model(*model);
      ASSIGN_OR_RETURN(
          const v1::Deployment made,
          Call(*api->deployments,
               &v1::DeploymentService::Stub::CreateDeployment, request));
      return program.Complete(*api, made, /*detach=*/false);
    };
  });
}

// The endpoint of a deployment, by name or id.
absl::StatusOr<std::string> EndpointOf(const Program& program,
                                       const std::string& deployment) {
  ASSIGN_OR_RETURN(const auto api, program.Open());
  v1::GetDeploymentRequest get;
  get.set_name(deployment.find('/') == std::string::npos
                   ? "deployments/" + deployment
                   : deployment);
  ASSIGN_OR_RETURN(const v1::Deployment found,
                   Call(*api->deployments,
                        &v1::DeploymentService::Stub::GetDeployment, get));
  if (found.state() != v1::Deployment::SERVING) {
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "NOT_SERVING",
        absl::StrCat(found.name(), " is ",
                     v1::Deployment::State_Name(found.state())),
        {{"name", found.name()}});
  }
  return found.endpoint();
}

void AddGenerate(CLI::App& app, Program& program) {
  CLI::App* command =
      app.add_subcommand("generate", "text from a served model");
  auto deployment = std::make_shared<std::string>();
  auto endpoint = std::make_shared<std::string>();
  auto prompt = std::make_shared<std::string>();
  auto request = std::make_shared<v1::GenerateRequest>();
  auto numbers = std::make_shared<std::map<std::string, double>>();
  auto max_tokens = std::make_shared<int>(128);
  auto stop = std::make_shared<std::vector<std::string>>();
  command->add_option("prompt", *prompt, "text to continue; - reads stdin")
      ->required();
  command->add_option("--deployment", *deployment, "id of a deployment");
  command->add_option("--endpoint", *endpoint,
                      "host:port of an inference server");
  command->add_option("--max-tokens", *max_tokens)->check(CLI::PositiveNumber);
  command->add_option("--stop", *stop, "end before this text; repeatable")
      ->allow_extra_args(false);
  for (const char* name : {"temperature", "top-k", "top-p", "min-p",
                           "repetition-penalty", "seed"}) {
    command->add_option(absl::StrCat("--", name), (*numbers)[name]);
  }
  command->callback([=, &program] {
    program.action = [=, &program]() -> absl::Status {
      if (endpoint->empty()) {
        ASSIGN_OR_RETURN(*endpoint, EndpointOf(program, *deployment));
      }
      if (*prompt == "-") {
        prompt->assign(std::istreambuf_iterator<char>(std::cin), {});
      }
      request->set_text(*prompt);
      v1::Sampling* sampling = request->mutable_sampling();
      sampling->set_temperature((*numbers)["temperature"]);
      sampling->set_top_k((*numbers)["top-k"]);
      sampling->set_top_p((*numbers)["top-p"]);
      sampling->set_min_p((*numbers)["min-p"]);
      sampling->set_repetition_penalty((*numbers)["repetition-penalty"]);
      sampling->set_seed((*numbers)["seed"]);
      request->mutable_stopping()->set_max_tokens(*max_tokens);
      for (const std::string& text : *stop) {
        request->mutable_stopping()->add_stop(text);
      }
      ASSIGN_OR_RETURN(
          const Generation generation,
          Generate(*endpoint, *request, program.json ? nullptr : &std::cout));
      if (program.json) {
        std::cout << GenerationJson(generation);
      }
      std::cout << std::endl;
      return absl::OkStatus();
    };
  });
}

void AddRun(CLI::App& app, Program& program) {
  CLI::App* command =
      app.add_subcommand("run", "run a whole pipeline file, import to serving");
  auto path = std::make_shared<std::string>();
  auto overrides = std::make_shared<std::vector<std::string>>();
  auto options = std::make_shared<RunOptions>();
  options->out_dir = "onegrid-out";
  command->add_option("pipeline", *path, "YAML file")
      ->required()
      ->check(CLI::ExistingFile);
  command->add_option("--out", options->out_dir,
                      "folder for report.json and the exports");
  command->add_option("--set", *overrides, "section.key=value; repeatable")
      ->allow_extra_args(false);
  command->callback([=, &program] {
    program.action = [=, &program]() -> absl::Status {
      ASSIGN_OR_RETURN(const std::string text, common::ReadFile(*path));
      ASSIGN_OR_RETURN(
          const PipelineFile file,
          ParsePipelineFile(
              text, std::filesystem::absolute(*path).parent_path().string(),
              *overrides));
      std::error_code error;
      std::filesystem::create_directories(options->out_dir, error);
      if (error) {
        return absl::UnavailableError(absl::StrCat(
            "cannot create ", options->out_dir, ": ", error.message()));
      }
      options->json = program.json;
      options->out_dir = std::filesystem::absolute(options->out_dir).string();
      ASSIGN_OR_RETURN(const auto api, program.Open());
      return RunPipeline(*api, file, *options, program.sink());
    };
  });
}

int Main(int argc, char** argv) {
  CLI::App app("Fine-tune, export and serve Gemma models on one int4 grid.");
  app.require_subcommand(1);
  app.fallthrough();
  Program program;
  app.add_option("--controller", program.controller,
                 "host:port; default: ONEGRID_CONTROLLER, else the local one");
  app.add_option("--data-dir", program.data_dir,
                 "state of `onegrid local`; default: ONEGRID_DATA_DIR, else " +
                     program.data_dir);
  app.add_flag("--json", program.json, "print JSON for scripts");
  AddLocal(app, program);
  AddModel(app, program);
  AddDataset(app, program);
  AddTune(app, program);
  AddExport(app, program);
  AddEvaluate(app, program);
  AddDeploy(app, program);
  AddGenerate(app, program);
  AddRun(app, program);
  AddResourceCommands(app, program);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = program.action();
  if (status.ok()) return 0;
  std::cerr << "onegrid: " << DescribeError(status) << std::endl;
  return 1;
}

}  // namespace
}  // namespace onegrid::cli

int main(int argc, char** argv) { return onegrid::cli::Main(argc, argv); }
