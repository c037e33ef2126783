// The exporter: a worker for imports and exports, or one of them at once.
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <system_error>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/util/json_util.h"
#include "services/common/byte_size.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/thread_count.h"
#include "services/common/worker.h"
#include "services/exporter/export_files.h"
#include "services/exporter/export_work.h"
#include "services/exporter/hf_importer.h"
#include "services/exporter/importer.h"

ABSL_FLAG(std::string, controller, "",
          "host:port of the controller to take work from.");
ABSL_FLAG(std::string, worker_name, "",
          "Stable name of this process. Default: binary and process id.");
ABSL_FLAG(std::string, cache_dir, "",
          "Folder for fetched blobs and scratch files.");
ABSL_FLAG(std::string, host, "127.0.0.1", "Address of the health service.");
ABSL_FLAG(int, port, 0, "Port of the health service; 0 picks a free one.");
ABSL_FLAG(std::string, port_file, "",
          "File that gets the health service's host:port once it serves.");
ABSL_FLAG(int, threads, 0,
          "Compute threads; 0: from affinity and cgroup quota.");
ABSL_FLAG(std::string, import, "",
          "Import this GGUF or folder of Hugging Face safetensors, floats or "
          "compressed-tensors, into --out and exit, without a controller.");
ABSL_FLAG(std::string, tokenizer_from, "",
          "With --import of a folder without tokenizer.model: a GGUF of the "
          "same vocabulary, whose tokenizer is taken.");
ABSL_FLAG(std::string, export_base, "",
          "Export from this on-grid GGUF into the folder --out and exit, "
          "without a controller.");
ABSL_FLAG(std::string, folded, "",
          "With --export_base: folded checkpoint. Without it and --adapter the "
          "base itself is written.");
ABSL_FLAG(std::string, adapter, "",
          "With --export_base: adapter safetensors. Without it only the "
          "merged formats are written.");
ABSL_FLAG(std::string, adapter_config, "",
          "With --adapter: its adapter_config.json.");
ABSL_FLAG(std::string, base_name, "base",
          "With --export_base: name of the base model in adapter files.");
ABSL_FLAG(std::string, max_shard_size, "0",
          "With --export_base: split a merged model into files of at most so "
          "much, e.g. 2GB. Default: one GGUF, and compressed-tensors of 50GB.");
ABSL_FLAG(std::string, out, "", "File of --import, folder of --export_base.");

namespace onegrid::exporter {
namespace {

// One line that rewrites itself on a terminal; else one line per stage.
absl::Status PrintProgress(absl::string_view stage, int64_t done,
                           int64_t total) {
  const bool terminal = isatty(STDERR_FILENO) != 0;
  if (terminal || done == total) {
    std::fprintf(stderr, "%s%-28s %lld/%lld%s", terminal ? "\r" : "",
                 std::string(stage).c_str(), static_cast<long long>(done),
                 static_cast<long long>(total), done == total ? "\n" : "");
  }
  return absl::OkStatus();
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "exporter: %s: %s\n",
               common::StatusCodeName(status.code()).c_str(),
               std::string(status.message()).c_str());
  return 1;
}

void PrintJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  (void)google::protobuf::util::MessageToJsonString(message, &json, options);
  std::printf("%s", json.c_str());
}

int ImportOnce(int threads) {
  const std::string source = absl::GetFlag(FLAGS_import);
  const std::string out = absl::GetFlag(FLAGS_out);
  const ImportOptions options = {threads, PrintProgress,
                                 absl::GetFlag(FLAGS_tokenizer_from)};
  std::error_code none;
  const auto report = std::filesystem::is_directory(source, none)
                          ? ImportHfFolder(source, out, options)
                          : ImportGguf(source, out, options);
  if (!report.ok()) return Fail(report.status());
  PrintJson(*report);
  return 0;
}

int ExportOnce() {
  ExportInputs inputs;
  inputs.base = absl::GetFlag(FLAGS_export_base);
  inputs.folded = absl::GetFlag(FLAGS_folded);
  inputs.adapter = absl::GetFlag(FLAGS_adapter);
  inputs.adapter_config = absl::GetFlag(FLAGS_adapter_config);
  inputs.base_name = absl::GetFlag(FLAGS_base_name);
  if (inputs.adapter.empty()) {
    inputs.formats = {v1::GGUF, v1::COMPRESSED_TENSORS};
    inputs.untuned = inputs.folded.empty();
  } else if (inputs.folded.empty()) {
    inputs.formats = {v1::LORA_GGUF, v1::PEFT};
  }
  const auto shard_bytes =
      common::ParseByteSize(absl::GetFlag(FLAGS_max_shard_size));
  if (!shard_bytes.ok()) return Fail(shard_bytes.status());
  inputs.max_shard_bytes = *shard_bytes;
  const std::string out = absl::GetFlag(FLAGS_out);
  if (const absl::Status made = common::MakeFolder(out); !made.ok()) {
    return Fail(made);
  }
  const auto outputs = ExportFiles(inputs, out, PrintProgress);
  if (!outputs.ok()) return Fail(outputs.status());
  PrintJson(outputs->equivalence);
  return 0;
}

int Work(int threads) {
  common::WorkerOptions options;
  options.controller = absl::GetFlag(FLAGS_controller);
  options.worker_name = absl::GetFlag(FLAGS_worker_name);
  options.cache_dir = absl::GetFlag(FLAGS_cache_dir);
  options.kinds = {v1::IMPORT, v1::EXPORT};
  options.server.host = absl::GetFlag(FLAGS_host);
  options.server.port = absl::GetFlag(FLAGS_port);
  options.server.port_file = absl::GetFlag(FLAGS_port_file);
  return common::RunWorker(options, [threads](common::WorkContext& context) {
    return HandleWork(context, threads);
  });
}

int Main() {
  const int threads =
      common::ChooseThreadCount(absl::GetFlag(FLAGS_threads)).threads;
  const bool once = !absl::GetFlag(FLAGS_import).empty() ||
                    !absl::GetFlag(FLAGS_export_base).empty();
  if (once && absl::GetFlag(FLAGS_out).empty()) {
    return Fail(absl::InvalidArgumentError("--out is missing"));
  }
  if (!absl::GetFlag(FLAGS_import).empty()) return ImportOnce(threads);
  if (!absl::GetFlag(FLAGS_export_base).empty()) return ExportOnce();
  if (absl::GetFlag(FLAGS_controller).empty() ||
      absl::GetFlag(FLAGS_cache_dir).empty()) {
    return Fail(absl::InvalidArgumentError(
        "name --controller and --cache_dir, or --import, or --export_base"));
  }
  return Work(threads);
}

}  // namespace
}  // namespace onegrid::exporter

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Imports checkpoints onto the grid and exports tuned models.\n"
      "  exporter --controller=HOST:PORT --cache_dir=DIR\n"
      "  exporter --import=SOURCE.gguf|FOLDER --out=BASE.gguf\n"
      "  exporter --export_base=BASE.gguf [--folded=FOLDED.safetensors]\n"
      "      [--adapter=A.safetensors --adapter_config=C.json]\n"
      "      [--max_shard_size=2GB] --out=DIR");
  absl::ParseCommandLine(argc, argv);
  return onegrid::exporter::Main();
}
