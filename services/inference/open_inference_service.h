// The logic of the Open Inference Protocol for one model, free of gRPC.
#ifndef SERVICES_INFERENCE_OPEN_INFERENCE_SERVICE_H_
#define SERVICES_INFERENCE_OPEN_INFERENCE_SERVICE_H_

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/open_inference/grpc_predict_v2.pb.h"
#include "services/inference/call_context.h"
#include "services/inference/model_slot.h"
#include "services/inference/open_inference_request.h"
#include "services/inference/open_inference_response.h"

namespace onegrid::inference {

// Reads requests, runs them through the GenerationService of the model served
// at present, and counts them. Errors
// are those listed in grpc_predict_v2.proto.
// Thread-safe: each call blocks its own thread.
class OpenInferenceService {
 public:
  // `model` must outlive this object. The name stays if it is replaced.
  OpenInferenceService(ModelSlot& model, std::string model_name)
      : model_(model), model_name_(std::move(model_name)) {}

  const std::string& model_name() const { return model_name_; }

  absl::StatusOr<oip::ModelInferResponse> Infer(
      const oip::ModelInferRequest& request, const CallContext& context);

  // One request of a stream. Calls `write` for each response, in order, from
  // the calling thread; an error becomes the last of them, and is returned as
  // well. When `write` returns false the generation ends.
  absl::Status StreamInfer(
      const oip::ModelInferRequest& request, const CallContext& context,
      absl::FunctionRef<bool(const oip::ModelStreamInferResponse&)> write);

  // NotFound (MODEL_NOT_FOUND).
  absl::Status CheckModel(absl::string_view name,
                          absl::string_view version) const;

  // The counts of the model; an empty name is any. NotFound (MODEL_NOT_FOUND).
  absl::StatusOr<oip::ModelStatisticsResponse> Statistics(
      const oip::ModelStatisticsRequest& request) const;

 private:
  using Write = absl::FunctionRef<bool(const oip::ModelStreamInferResponse&)>;

  // Runs a call. `write` gets a part for each piece of text if `parts`, and the
  // end with what is left; else all of it at the end.
  absl::Status Generate(const InferCall& call, const CallContext& context,
                        bool parts,
                        absl::FunctionRef<bool(const InferPart&)> write);
  absl::Status StreamCall(const InferCall& call, const CallContext& context,
                          Write write);
  // Counts a request that has ended. `finished`: null if it failed.
  void Count(absl::Time start, const v1::Finished* finished);

  ModelSlot& model_;
  const std::string model_name_;

  mutable absl::Mutex mu_;
  oip::ModelStatistics statistics_ ABSL_GUARDED_BY(mu_);
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_OPEN_INFERENCE_SERVICE_H_
