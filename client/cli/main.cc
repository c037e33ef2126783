// `onegrid`: the command-line client. Flags and wiring only.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/api.h"
#include "client/cli/connection.h"
#include "client/cli/generate.h"
#include "client/cli/jobs.h"
#include "client/cli/local.h"
#include "client/cli/pipeline_file.h"
#include "client/cli/run_pipeline.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/inspect.h"

namespace onegrid::cli {
namespace {

// Flags that every command shares, and the action that was chosen.
struct Program {
  std::string controller;
  std::string data_dir = DefaultDataDir();
  bool json = false;
  std::function<absl::Status()> action;

  ProgressSink sink() const { return {&std::cerr, isatty(STDERR_FILENO) != 0}; }

  absl::StatusOr<std::unique_ptr<Api>> Open() const {
    ASSIGN_OR_RETURN(const std::string address,
                     FindController(controller, data_dir));
    return std::make_unique<Api>(Connect(address));
  }

  // Prints a created or found resource: its JSON, or its name.
  template <typename Resource>
  absl::Status Print(const Resource& resource) const {
    std::cout << (json ? ToJson(resource) : resource.name()) << std::endl;
    return absl::OkStatus();
  }

  // Waits for `resource` unless `detach`, then prints it.
  template <typename Resource>
  absl::Status Complete(Api& api, const Resource& resource, bool detach) const {
    if (detach) return Print(resource);
    RETURN_IF_ERROR(WaitFor(api, resource.name(), sink()));
    ASSIGN_OR_RETURN(const MessagePtr done, GetResource(api, resource.name()));
    if (json) {
      std::cout << ToJson(*done) << std::endl;
      return absl::OkStatus();
    }
    std::cout << done->DebugString();
    return absl::OkStatus();
  }
};

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

void AddInspect(CLI::App& parent, Program& program) {
  CLI::App* inspect = parent.add_subcommand(
      "inspect", "say what a model's files hold; needs no controller");
  auto options = std::make_shared<model::InspectOptions>();
  auto path = std::make_shared<std::string>();
  inspect
      ->add_option("path", *path,
                   "GGUF file (any of its shards) or folder with safetensors")
      ->required()
      ->check(CLI::ExistingPath);
  inspect
      ->add_option("--context", options->context_tokens,
                   "tokens of the sequence in the memory to serve")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  inspect->callback([&program, options, path] {
    program.action = [&program, options, path]() -> absl::Status {
      options->json = program.json;
      ASSIGN_OR_RETURN(const std::string text,
                       model::InspectModel(*path, *options));
      std::cout << text << std::flush;
      return absl::OkStatus();
    };
  });
}

void AddModel(CLI::App& app, Program& program) {
  CLI::App* model = app.add_subcommand("model", "base models");
  model->require_subcommand(1);
  AddInspect(*model, program);
  CLI::App* import = model->add_subcommand(
      "import", "upload a GGUF checkpoint and put it on the int4 grid");
  auto id = std::make_shared<std::string>();
  auto path = std::make_shared<std::string>();
  import->add_option("path", *path, "GGUF file")
      ->required()
      ->check(CLI::ExistingFile);
  import->add_option("--id", *id, "id of the base model")->required();
  import->callback([&program, id, path] {
    program.action = [&program, id, path]() -> absl::Status {
      ASSIGN_OR_RETURN(const auto api, program.Open());
      ASSIGN_OR_RETURN(
          const v1::BaseModel imported,
          ImportModel(*api, *id, *path, /*reuse=*/false, program.sink()));
      return program.Print(imported);
    };
  });
}

void AddDataset(CLI::App& app, Program& program) {
  CLI::App* dataset = app.add_subcommand("dataset", "datasets");
  dataset->require_subcommand(1);
  CLI::App* create = dataset->add_subcommand(
      "create",
      "upload JSONL files: prompt and completion, messages, text, alpaca or "
      "sharegpt lines");
  auto id = std::make_shared<std::string>();
  auto files = std::make_shared<DatasetFiles>();
  create->add_option("--id", *id, "id of the dataset")->required();
  create->add_option("--train", files->train)
      ->required()
      ->check(CLI::ExistingFile);
  create->add_option("--validation", files->validation)
      ->required()
      ->check(CLI::ExistingFile);
  create->add_option("--test", files->test)
      ->required()
      ->check(CLI::ExistingFile);
  create
      ->add_option("--format", files->format,
                   "format of the lines; default: what the first line is")
      ->transform(CLI::CheckedTransformer(DatasetFormats(), CLI::ignore_case));
  create->add_flag("--drop-invalid", files->drop_invalid,
                   "leave out lines that cannot be learned, such as "
                   "conversations without a last answer");
  create->callback([&program, id, files] {
    program.action = [&program, id, files]() -> absl::Status {
      ASSIGN_OR_RETURN(const auto api, program.Open());
      ASSIGN_OR_RETURN(
          const v1::Dataset created,
          CreateDataset(*api, *id, *files, /*reuse=*/false, program.sink()));
      std::cerr << DescribeSplits(created);
      return program.Print(created);
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
  tune->add_flag("--detach", *detach, "return at once");
  tune->callback([&program, request, flags, values, detach] {
    program.action = [&program, request, flags, values,
                      detach]() -> absl::Status {
      std::vector<std::string> overrides;
      for (const std::string& value : *values) {
        overrides.push_back("tune." + value);
      }
      // The same keys and checks as in a pipeline file; the rest is filler.
      ASSIGN_OR_RETURN(const PipelineFile file,
                       ParsePipelineFile("{name: x, base_model: {id: x}, "
                                         "dataset: {id: x, train: x, "
                                         "validation: x, test: x}}",
                                         "", overrides));
      ASSIGN_OR_RETURN(const auto api, program.Open());
      *request->mutable_tuning_job() = file.run.tuning_job();
      request->mutable_tuning_job()->set_base_model((*flags)["base-model"]);
      request->mutable_tuning_job()->set_dataset((*flags)["dataset"]);
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
  command->add_option("--tuning-job", *job, "tuningJobs/ID")->required();
  command->add_option("--id", *id, "id of the export")->required();
  command->add_option("--out", *out_dir, "also download the files here");
  command->callback([&program, job, id, out_dir] {
    program.action = [&program, job, id, out_dir]() -> absl::Status {
      ASSIGN_OR_RETURN(const auto api, program.Open());
      v1::CreateExportRequest request;
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

absl::Status GetOne(const Program& program, const std::string& name) {
  ASSIGN_OR_RETURN(const auto api, program.Open());
  ASSIGN_OR_RETURN(const MessagePtr found, GetResource(*api, name));
  std::cout << (program.json ? ToJson(*found) : found->DebugString());
  return absl::OkStatus();
}

absl::Status ListAll(const Program& program, const std::string& collection) {
  ASSIGN_OR_RETURN(const auto api, program.Open());
  ASSIGN_OR_RETURN(const std::vector<MessagePtr> all,
                   ListResources(*api, collection));
  if (program.json) std::cout << "[\n";
  for (size_t i = 0; i < all.size(); ++i) {
    if (program.json) {
      std::cout << (i == 0 ? "" : ",\n") << ToJson(*all[i]);
      continue;
    }
    const google::protobuf::Message& message = *all[i];
    const auto* descriptor = message.GetDescriptor();
    const auto* reflection = message.GetReflection();
    std::cout << reflection->GetString(message,
                                       descriptor->FindFieldByName("name"));
    if (const auto* state = descriptor->FindFieldByName("state")) {
      std::cout << " " << reflection->GetEnum(message, state)->name();
    }
    std::cout << "\n";
  }
  if (program.json) std::cout << "]\n";
  return absl::OkStatus();
}

// Commands that take one resource or collection.
void AddResourceCommands(CLI::App& app, Program& program) {
  using Action = std::function<absl::Status(const std::string&)>;
  const auto add = [&](const char* name, const char* help,
                       const std::string& argument_help, bool required,
                       Action action) {
    CLI::App* command = app.add_subcommand(name, help);
    auto argument = std::make_shared<std::string>();
    CLI::Option* option = command->add_option("name", *argument, argument_help);
    if (required) option->required();
    command->callback([&program, argument, action] {
      program.action = [argument, action] { return action(*argument); };
    });
  };
  add("get", "print one resource", "e.g. tuningJobs/t1", true,
      [&program](const std::string& name) { return GetOne(program, name); });
  add("list", "print all resources of a collection",
      absl::StrJoin(CollectionNames(), ", "), true,
      [&program](const std::string& name) { return ListAll(program, name); });
  add("watch", "print events until a resource ends",
      "resource; all events when left out", false,
      [&program](const std::string& name) -> absl::Status {
        ASSIGN_OR_RETURN(const auto api, program.Open());
        return Watch(*api, name, program.json,
                     {&std::cout, isatty(STDOUT_FILENO) != 0});
      });
  add("cancel", "cancel a tuning job or a pipeline run",
      "tuningJobs/ID or pipelineRuns/ID", true,
      [&program](const std::string& name) -> absl::Status {
        ASSIGN_OR_RETURN(const auto api, program.Open());
        return CancelResource(*api, name);
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
