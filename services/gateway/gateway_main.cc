// Serves the OpenAI API over HTTP, from one inference server.
#include <cstdio>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/stop_signal.h"
#include "services/gateway/backend.h"
#include "services/gateway/gateway.h"
#include "services/gateway/http_server.h"
#include "services/gateway/route_config.h"
#include "services/gateway/router.h"

ABSL_FLAG(std::string, backend, "",
          "host:port of the inference server that generates.");
ABSL_FLAG(std::string, model_name, "",
          "Name under which clients ask for the model.");
ABSL_FLAG(std::string, host, "127.0.0.1", "Address to listen on.");
ABSL_FLAG(int, port, 0, "Port to listen on; 0 picks a free one.");
ABSL_FLAG(std::string, port_file, "",
          "File to write host:port to once serving.");
ABSL_FLAG(int, threads, 128,
          "Connections served at once, each by a thread; more wait.");
ABSL_FLAG(int, max_body_bytes, 4 << 20,
          "Largest body of a request; larger ones get status 413.");
ABSL_FLAG(int, timeout_seconds, 600,
          "Most time one request may take; then it gets status 504.");
ABSL_FLAG(int, drain_seconds, 20,
          "On SIGTERM, how long answers in progress may go on.");
ABSL_FLAG(std::string, api_key_file, "",
          "File with the key that clients of /v1 must send as \"Authorization: "
          "Bearer KEY\"; without it all are let in.");

ABSL_FLAG(std::string, routes, "",
          "File with the rules that send requests to upstreams; without it the "
          "backend answers all. See services/gateway/README.md.");

namespace onegrid::gateway {
namespace {

constexpr absl::Duration kMeasureTimeout = absl::Milliseconds(500);

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "gateway: %s\n", std::string(status.message()).c_str());
  return 1;
}

absl::Status CheckFlags() {
  const struct {
    const char* name;
    int value;
    int min;
    int max;
  } numbers[] = {
      {"threads", absl::GetFlag(FLAGS_threads), 1, 10'000},
      {"max_body_bytes", absl::GetFlag(FLAGS_max_body_bytes), 1, 1 << 30},
      {"timeout_seconds", absl::GetFlag(FLAGS_timeout_seconds), 1, 1'000'000},
      {"drain_seconds", absl::GetFlag(FLAGS_drain_seconds), 0, 1'000'000},
  };
  for (const auto& number : numbers) {
    if (number.value >= number.min && number.value <= number.max) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--", number.name, " is ", number.value, ", expected ",
                     number.min, "..", number.max));
  }
  if (absl::GetFlag(FLAGS_backend).empty()) {
    return absl::InvalidArgumentError("--backend is missing");
  }
  if (absl::GetFlag(FLAGS_model_name).empty()) {
    return absl::InvalidArgumentError("--model_name is missing");
  }
  return absl::OkStatus();
}

// The key without white space around it; empty without a file.
absl::StatusOr<std::string> ReadApiKey() {
  const std::string path = absl::GetFlag(FLAGS_api_key_file);
  if (path.empty()) return "";
  ASSIGN_OR_RETURN(std::string key, common::ReadFile(path));
  absl::StripAsciiWhitespace(&key);
  // An empty key would let everybody in.
  if (key.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, " has no key in it"));
  }
  return key;
}

HttpServerOptions ServerOptionsFromFlags() {
  HttpServerOptions options;
  options.host = absl::GetFlag(FLAGS_host);
  options.port = absl::GetFlag(FLAGS_port);
  options.port_file = absl::GetFlag(FLAGS_port_file);
  options.connections_max = absl::GetFlag(FLAGS_threads);
  options.body_bytes_max =
      static_cast<size_t>(absl::GetFlag(FLAGS_max_body_bytes));
  options.answer_timeout =
      absl::Seconds(absl::GetFlag(FLAGS_timeout_seconds)) + absl::Minutes(1);
  options.drain_timeout = absl::Seconds(absl::GetFlag(FLAGS_drain_seconds));
  return options;
}

// What rules ask of the backend.
RouteMeasures MeasuresOf(Backend& backend) {
  RouteMeasures measures;
  measures.count_tokens =
      [&backend](const std::string& text) -> std::optional<int64_t> {
    const auto tokens = backend.Tokenize(text, /*add_bos=*/false,
                                         /*parse_control_tokens=*/false,
                                         absl::Now() + kMeasureTimeout);
    if (!tokens.ok()) return std::nullopt;
    return static_cast<int64_t>(tokens->size());
  };
  measures.queued = [&backend]() -> std::optional<int64_t> {
    const auto load = backend.Load(kMeasureTimeout);
    if (!load.ok()) return std::nullopt;
    return load->queued();
  };
  return measures;
}

// nullptr without routes.
absl::StatusOr<std::unique_ptr<Router>> RouterFromFlags(Backend& backend) {
  const std::string path = absl::GetFlag(FLAGS_routes);
  if (path.empty()) return nullptr;
  ASSIGN_OR_RETURN(RouteConfig config, ReadRouteConfig(path));
  return std::make_unique<Router>(std::move(config),
                                  absl::GetFlag(FLAGS_model_name),
                                  MeasuresOf(backend), absl::Now);
}

uint64_t Random() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

int Main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Serves the OpenAI API over HTTP, from one inference server.\n"
      "gateway --backend=HOST:PORT --model_name=NAME [--port=PORT]");
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    return Fail(absl::InvalidArgumentError(
        absl::StrCat("unexpected argument ", rest[1])));
  }
  if (absl::Status status = CheckFlags(); !status.ok()) return Fail(status);
  const absl::StatusOr<std::string> api_key = ReadApiKey();
  if (!api_key.ok()) return Fail(api_key.status());

  // Before any thread: writing to a client that has gone must not end this.
  common::InstallStopSignal();
  Backend backend(absl::GetFlag(FLAGS_backend));
  const auto router = RouterFromFlags(backend);
  if (!router.ok()) return Fail(router.status());
  GatewayOptions options;
  options.router = router->get();
  options.model_name = absl::GetFlag(FLAGS_model_name);
  options.api_key = *api_key;
  options.timeout = absl::Seconds(absl::GetFlag(FLAGS_timeout_seconds));
  options.random = Random;
  Gateway gateway(options, backend);
  HttpServer server(ServerOptionsFromFlags(), [&](const HttpRequest& request) {
    return gateway.Handle(request);
  });
  if (absl::Status status = server.Start(); !status.ok()) return Fail(status);
  common::WaitForStop(absl::InfiniteDuration());
  server.Stop();
  return 0;
}

}  // namespace
}  // namespace onegrid::gateway

int main(int argc, char** argv) { return onegrid::gateway::Main(argc, argv); }
