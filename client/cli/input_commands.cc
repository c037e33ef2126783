#include "client/cli/input_commands.h"

#include "absl/strings/str_join.h"
#include "client/cli/jobs.h"
#include "client/cli/pipeline_file.h"
#include "services/model/inspect.h"

namespace onegrid::cli {
namespace {

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
  inspect
      ->add_option("--sequence-tokens", options->sequence_tokens,
                   "tokens of a packed sequence in the memory to tune")
      ->check(CLI::Range(8, 8192))
      ->capture_default_str();
  inspect
      ->add_option("--rank", options->rank,
                   "rank of the adapter in the memory to tune")
      ->check(CLI::Range(1, 256))
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

}  // namespace

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

}  // namespace onegrid::cli
