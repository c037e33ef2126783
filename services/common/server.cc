#include "services/common/server.h"

#include <unistd.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/log.h"
#include "services/common/stop_signal.h"

namespace onegrid::common {

ServerRunner::ServerRunner(ServerOptions options)
    : options_(std::move(options)) {}

ServerRunner::~ServerRunner() { Stop(); }

void ServerRunner::AddService(grpc::Service* service, const std::string& name) {
  services_.push_back(service);
  AddHealthName(name);
}

void ServerRunner::AddHealthName(const std::string& name) {
  if (!name.empty()) names_.push_back(name);
}

absl::Status ServerRunner::Start() {
  // Both are process-wide switches of gRPC and must precede the builder.
  static const bool once = [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    return true;
  }();
  (void)once;
  if (options_.port < 0 || options_.port > 65535) {
    return MakeError(absl::StatusCode::kInvalidArgument, "INVALID_FLAG",
                     absl::StrCat("port ", options_.port,
                                  " does not exist, expected 0..65535"),
                     {{"port", absl::StrCat(options_.port)}});
  }
  grpc::ServerBuilder builder;
  // Without this two servers can share a port and steal calls of each other.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(options_.message_bytes_max);
  builder.SetMaxSendMessageSize(options_.message_bytes_max);
  int bound_port = 0;
  const std::string wanted = absl::StrCat(options_.host, ":", options_.port);
  builder.AddListeningPort(wanted, grpc::InsecureServerCredentials(),
                           &bound_port);
  for (grpc::Service* service : services_) builder.RegisterService(service);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || bound_port == 0) {
    server_ = nullptr;
    return MakeError(absl::StatusCode::kUnavailable, "PORT_IN_USE",
                     absl::StrCat("cannot listen on ", wanted,
                                  ": the port is taken or the host is not an "
                                  "address of this machine"),
                     {{"address", wanted}});
  }
  address_ = absl::StrCat(options_.host, ":", bound_port);
  {
    absl::MutexLock lock(&mu_);
    health_ = server_->GetHealthCheckService();
    Report(!draining_);
  }
  if (!options_.port_file.empty()) {
    RETURN_IF_ERROR(WriteFileAtomic(options_.port_file, address_));
  }
  LogInfo("serving", {{"address", address_}});
  return absl::OkStatus();
}

void ServerRunner::Report(bool healthy) {
  if (health_ == nullptr) return;
  for (const std::string& name : names_) {
    health_->SetServingStatus(name, healthy);
  }
  health_->SetServingStatus(healthy);
}

void ServerRunner::ReportDraining() {
  absl::MutexLock lock(&mu_);
  draining_ = true;
  Report(false);
}

void ServerRunner::Stop() {
  if (server_ == nullptr) return;
  ReportDraining();
  if (options_.on_drain) options_.on_drain();
  const auto deadline =
      absl::ToChronoTime(absl::Now() + options_.drain_timeout);
  server_->Shutdown(deadline);
  server_->Wait();
  {
    absl::MutexLock lock(&mu_);
    health_ = nullptr;
    draining_ = false;
  }
  server_ = nullptr;
  if (!options_.port_file.empty()) ::unlink(options_.port_file.c_str());
  LogInfo("stopped", {{"address", address_}});
}

absl::Status ServerRunner::RunUntilSignal() {
  InstallStopSignal();
  RETURN_IF_ERROR(Start());
  WaitForStop(absl::InfiniteDuration());
  Stop();
  return absl::OkStatus();
}

}  // namespace onegrid::common
