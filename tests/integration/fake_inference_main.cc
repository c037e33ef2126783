// Stands in for inference where a test is about the controller: serves
// nothing but GetServerInfo, with its process id as version.
#include <unistd.h>

#include <cstdio>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/grpcpp.h"
#include "proto/onegrid/v1/generation.grpc.pb.h"
#include "services/common/files.h"
#include "services/common/server.h"

ABSL_FLAG(std::string, model, "", "File to serve.");
ABSL_FLAG(std::string, artifact_sha256, "", "Its digest.");
ABSL_FLAG(std::string, activations, "int8", "int8 or f32.");
ABSL_FLAG(std::string, kv_cache, "int8", "int8 or f32.");
ABSL_FLAG(int, threads, 0, "Threads.");
ABSL_FLAG(int, port, 0, "Port to listen on.");
ABSL_FLAG(std::string, port_file, "", "File that gets host:port.");

namespace onegrid {
namespace {

class InfoService final : public v1::GenerationService::Service {
  grpc::Status GetServerInfo(grpc::ServerContext*,
                             const v1::GetServerInfoRequest*,
                             v1::ServerInfo* info) override {
    info->set_artifact_sha256(absl::GetFlag(FLAGS_artifact_sha256));
    info->set_activations(absl::GetFlag(FLAGS_activations));
    info->set_version(absl::StrCat(::getpid()));
    return grpc::Status::OK;
  }
};

}  // namespace
}  // namespace onegrid

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const auto sha256 = onegrid::common::Sha256OfFile(absl::GetFlag(FLAGS_model));
  if (!sha256.ok() || *sha256 != absl::GetFlag(FLAGS_artifact_sha256)) {
    std::fprintf(stderr, "the model is not the artifact\n");
    return 1;
  }
  onegrid::InfoService service;
  onegrid::common::ServerOptions options;
  options.port = absl::GetFlag(FLAGS_port);
  options.port_file = absl::GetFlag(FLAGS_port_file);
  onegrid::common::ServerRunner server(options);
  server.AddService(&service);
  return server.RunUntilSignal().ok() ? 0 : 1;
}
