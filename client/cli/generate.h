// `onegrid generate`: text from a served model.
#ifndef CLIENT_CLI_GENERATE_H_
#define CLIENT_CLI_GENERATE_H_

#include <ostream>
#include <string>

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/generation.pb.h"

namespace onegrid::cli {

struct Generation {
  std::string text;
  v1::Finished finished;
};

// Sends `request` to the inference server at host:port. Text is also written
// to `stream` as it arrives, unless that is null.
absl::StatusOr<Generation> Generate(const std::string& endpoint,
                                    const v1::GenerateRequest& request,
                                    std::ostream* stream);

// The fields of Finished and "text", as a JSON object.
std::string GenerationJson(const Generation& generation);

}  // namespace onegrid::cli

#endif  // CLIENT_CLI_GENERATE_H_
