// Serves the OpenAI API over HTTP, from one inference server.
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/stop_signal.h"
#include "services/gateway/backend.h"
#include "services/gateway/gateway.h"
#include "services/gateway/http_server.h"

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

namespace onegrid::gateway {
namespace {

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
  GatewayOptions options;
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
