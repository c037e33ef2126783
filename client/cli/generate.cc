#include "client/cli/generate.h"

#include <nlohmann/json.hpp>

#include "client/cli/api.h"
#include "client/cli/connection.h"
#include "proto/onegrid/v1/generation.grpc.pb.h"
#include "services/common/grpc_status.h"

namespace onegrid::cli {

absl::StatusOr<Generation> Generate(const std::string& endpoint,
                                    const v1::GenerateRequest& request,
                                    std::ostream* stream) {
  auto stub = v1::GenerationService::NewStub(Connect(endpoint));
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, request);
  Generation generation;
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.has_delta()) {
      generation.text += response.delta().text();
      if (stream != nullptr) *stream << response.delta().text() << std::flush;
    } else if (response.has_finished()) {
      generation.finished = response.finished();
    }
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return common::FromGrpc(status);
  return generation;
}

std::string GenerationJson(const Generation& generation) {
  nlohmann::json json = nlohmann::json::parse(ToJson(generation.finished));
  json["text"] = generation.text;
  // Text of a model may be cut within a character.
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace onegrid::cli
