// Stands in for inference where a test is about the gateway's HTTP.
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "services/common/server.h"
#include "services/gateway/fake_backend.h"

ABSL_FLAG(std::string, port_file, "", "File that gets host:port.");
ABSL_FLAG(std::string, chat_format, "gemma3", "Of the served model.");

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  onegrid::gateway::FakeBackend service(
      /*has_control_tokens=*/true, absl::GetFlag(FLAGS_chat_format));
  onegrid::common::ServerOptions options;
  options.port_file = absl::GetFlag(FLAGS_port_file);
  options.drain_timeout = absl::ZeroDuration();
  onegrid::common::ServerRunner server(options);
  server.AddService(&service);
  server.AddService(&service.vocabulary());
  return server.RunUntilSignal().ok() ? 0 : 1;
}
