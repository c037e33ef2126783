// Messages of the Open Inference Protocol from what was generated and from
// what is served.
#ifndef SERVICES_INFERENCE_OPEN_INFERENCE_RESPONSE_H_
#define SERVICES_INFERENCE_OPEN_INFERENCE_RESPONSE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/onegrid/v1/generation.pb.h"
#include "proto/open_inference/grpc_predict_v2.pb.h"
#include "services/inference/open_inference_request.h"

namespace onegrid::inference {

// What one response has to say.
struct InferPart {
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<float> logprobs;
  // Of the last part with outputs; null before.
  const v1::Finished* finished = nullptr;
};

// Adds a delta to what has been said.
void Append(const v1::Delta& delta, InferPart* part);

// The outputs that the call asked for; those that belong to the end only if
// this is it.
oip::ModelInferResponse MakeInferResponse(const InferCall& call,
                                          absl::string_view model_name,
                                          const InferPart& part);

// On a stream every response says whether it is the last to its request.
void SetFinal(bool final, oip::ModelInferResponse* response);

// The last response to a request of this id that failed.
oip::ModelStreamInferResponse MakeStreamError(const absl::Status& status,
                                              absl::string_view model_name,
                                              const std::string& id);

oip::ServerMetadataResponse MakeServerMetadata();
oip::ModelMetadataResponse MakeModelMetadata(const std::string& model_name);
oip::ModelConfig MakeModelConfig(const std::string& model_name);
oip::RepositoryIndexResponse MakeRepositoryIndex(const std::string& model_name);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_OPEN_INFERENCE_RESPONSE_H_
