// A ModelInferRequest as it comes over the wire, and the response to it.
#include <cstddef>
#include <cstdint>
#include <string>

#include "proto/onegrid/v1/generation.pb.h"
#include "proto/open_inference/grpc_predict_v2.pb.h"
#include "services/inference/open_inference_request.h"
#include "services/inference/open_inference_response.h"
#include "tests/fuzz/fuzz_input.h"

namespace onegrid::fuzz {
namespace {

namespace oip = ::inference;

// What is promised of a request that was read.
void CheckCall(const inference::InferCall& call) {
  const v1::GenerateRequest& request = call.request;
  Promise(request.prompt_case() != v1::GenerateRequest::PROMPT_NOT_SET,
          "a prompt");
  for (const int32_t id : request.token_ids().ids()) {
    Promise(id >= 0, "a token id");
  }
  Promise(request.stopping().max_tokens() >= 0, "max_tokens");
  Promise(request.sampling().top_k() >= 0, "top_k");
  Promise(call.timeout > absl::ZeroDuration(), "timeout");
  Promise(!call.outputs.empty(), "outputs");
  for (const auto output : call.outputs) {
    Promise(
        output != inference::ModelOutput::kOutputLogProbs || request.logprobs(),
        "log-probabilities that were asked for");
  }
}

// A response in the request's manner is one that a client can read.
void CheckResponse(const inference::InferCall& call) {
  v1::Finished finished;
  finished.set_completion_tokens(1);
  inference::InferPart part;
  part.text = "a";
  part.token_ids = {1};
  part.logprobs = {0};
  part.finished = &finished;
  const oip::ModelInferResponse response =
      inference::MakeInferResponse(call, "m", part);
  Promise(response.outputs_size() == static_cast<int>(call.outputs.size()),
          "an output for each that was asked for");
  Promise(response.raw_output_contents_size() ==
              (call.raw ? response.outputs_size() : 0),
          "outputs in one place");
  std::string bytes;
  Promise(response.SerializeToString(&bytes), "a response on the wire");
}

}  // namespace
}  // namespace onegrid::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ::inference::ModelInferRequest request;
  if (!request.ParseFromArray(data, static_cast<int>(size))) return 0;
  // Past the name, which would have to be guessed.
  request.set_model_name("m");
  const auto call = onegrid::inference::ReadInferRequest(request, "m");
  onegrid::fuzz::PromiseNamed(call.status(), "");
  if (!call.ok()) return 0;
  onegrid::fuzz::CheckCall(*call);
  onegrid::fuzz::CheckResponse(*call);
  return 0;
}
