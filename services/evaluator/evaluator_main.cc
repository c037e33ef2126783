// The evaluator: a worker for evaluations, or one of them at once.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "google/protobuf/util/json_util.h"
#include "proto/onegrid/v1/evaluation.pb.h"
#include "services/common/error_info.h"
#include "services/common/worker.h"
#include "services/evaluator/engine_client.h"
#include "services/evaluator/equivalence_eval.h"
#include "services/evaluator/evaluate_work.h"
#include "services/evaluator/probe_file.h"
#include "services/evaluator/task_eval.h"
#include "services/model/jsonl_dataset.h"

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
ABSL_FLAG(int, in_flight, 8, "Examples evaluated at once, 1..64.");
ABSL_FLAG(std::string, endpoint, "",
          "Evaluate the inference server at this host:port on --split and "
          "exit, without a controller.");
ABSL_FLAG(std::string, split, "", "With --endpoint: JSONL file of examples.");
ABSL_FLAG(int, max_examples, 0,
          "With --split: examples from its start; 0 takes all.");
ABSL_FLAG(std::string, probe, "",
          "Compare the engines with this probe file and exit, without a "
          "controller.");
ABSL_FLAG(std::string, float_endpoint, "",
          "With --probe: host:port of a server in float mode.");
ABSL_FLAG(std::string, served_endpoint, "",
          "With --probe: host:port of a server as served.");

namespace onegrid::evaluator {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "evaluator: %s: %s\n",
               common::StatusCodeName(status.code()).c_str(),
               std::string(status.message()).c_str());
  return 1;
}

absl::Status PrintProgress(absl::string_view stage, int64_t done, int64_t total,
                           const v1::ModelMetrics* so_far) {
  const int64_t step = total / 10 > 0 ? total / 10 : 1;
  if (done % step != 0 && done != total) return absl::OkStatus();
  std::fprintf(stderr, "%s %lld/%lld", std::string(stage).c_str(),
               static_cast<long long>(done), static_cast<long long>(total));
  if (so_far != nullptr) {
    std::fprintf(stderr, " accuracy %.1f perplexity %.4f", so_far->accuracy(),
                 so_far->perplexity());
  }
  std::fprintf(stderr, "\n");
  return absl::OkStatus();
}

int PrintJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string json;
  (void)google::protobuf::util::MessageToJsonString(message, &json, options);
  std::printf("%s", json.c_str());
  return 0;
}

int TaskOnce() {
  auto examples = model::ReadJsonl(absl::GetFlag(FLAGS_split));
  if (!examples.ok()) return Fail(examples.status());
  const size_t max_examples = absl::GetFlag(FLAGS_max_examples);
  if (max_examples > 0 && max_examples < examples->size()) {
    examples->resize(max_examples);
  }
  EngineClient engine(absl::GetFlag(FLAGS_endpoint));
  const auto info = engine.Info();
  if (!info.ok()) return Fail(info.status());
  const auto metrics = EvaluateTask(
      engine, *examples, {absl::GetFlag(FLAGS_in_flight), PrintProgress});
  if (!metrics.ok()) return Fail(metrics.status());
  const auto speeds = MeasureSpeeds(engine, *examples, PrintProgress);
  if (!speeds.ok()) return Fail(speeds.status());
  v1::Evaluation evaluation;
  *evaluation.mutable_metrics() = *metrics;
  evaluation.set_prefill_tokens_per_second(speeds->prefill_tokens_per_second);
  evaluation.set_decode_tokens_per_second(speeds->decode_tokens_per_second);
  evaluation.set_engine(DescribeEngine(*info));
  return PrintJson(evaluation);
}

int ProbeOnce() {
  const auto probe = ProbeFile::Open(absl::GetFlag(FLAGS_probe));
  if (!probe.ok()) return Fail(probe.status());
  v1::EquivalenceReport report;
  report.set_probe_tokens((*probe)->positions());
  if (const std::string endpoint = absl::GetFlag(FLAGS_float_endpoint);
      !endpoint.empty()) {
    EngineClient engine(endpoint);
    const auto agreement =
        CompareLogits(engine, **probe, "float", PrintProgress);
    if (!agreement.ok()) return Fail(agreement.status());
    *report.mutable_float_engine() = *agreement;
  }
  if (const std::string endpoint = absl::GetFlag(FLAGS_served_endpoint);
      !endpoint.empty()) {
    EngineClient engine(endpoint);
    const auto agreement =
        CompareLogits(engine, **probe, "served", PrintProgress);
    if (!agreement.ok()) return Fail(agreement.status());
    *report.mutable_served_engine() = *agreement;
  }
  return PrintJson(report);
}

int Work() {
  common::WorkerOptions options;
  options.controller = absl::GetFlag(FLAGS_controller);
  options.worker_name = absl::GetFlag(FLAGS_worker_name);
  options.cache_dir = absl::GetFlag(FLAGS_cache_dir);
  options.kinds = {v1::EVALUATE};
  options.server.host = absl::GetFlag(FLAGS_host);
  options.server.port = absl::GetFlag(FLAGS_port);
  options.server.port_file = absl::GetFlag(FLAGS_port_file);
  const int in_flight = absl::GetFlag(FLAGS_in_flight);
  return common::RunWorker(options, [in_flight](common::WorkContext& context) {
    return HandleWork(context, in_flight);
  });
}

int Main() {
  const int in_flight = absl::GetFlag(FLAGS_in_flight);
  if (in_flight < 1 || in_flight > 64) {
    return Fail(absl::InvalidArgumentError("--in_flight must be 1..64"));
  }
  if (!absl::GetFlag(FLAGS_probe).empty()) return ProbeOnce();
  if (!absl::GetFlag(FLAGS_endpoint).empty()) return TaskOnce();
  if (absl::GetFlag(FLAGS_controller).empty() ||
      absl::GetFlag(FLAGS_cache_dir).empty()) {
    return Fail(absl::InvalidArgumentError(
        "name --controller and --cache_dir, or --endpoint, or --probe"));
  }
  return Work();
}

}  // namespace
}  // namespace onegrid::evaluator

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Evaluates served models.\n"
      "  evaluator --controller=HOST:PORT --cache_dir=DIR\n"
      "  evaluator --endpoint=HOST:PORT --split=FILE.jsonl\n"
      "  evaluator --probe=FILE [--float_endpoint=HOST:PORT]\n"
      "      [--served_endpoint=HOST:PORT]");
  absl::ParseCommandLine(argc, argv);
  return onegrid::evaluator::Main();
}
