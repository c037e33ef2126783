// From a ModelInferRequest of the Open Inference Protocol to a checked
// request of our own.
#ifndef SERVICES_INFERENCE_OPEN_INFERENCE_REQUEST_H_
#define SERVICES_INFERENCE_OPEN_INFERENCE_REQUEST_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/open_inference/grpc_predict_v2.pb.h"
#include "services/inference/open_inference_options.h"
#include "services/inference/open_inference_tensor.h"

namespace onegrid::inference {

// The one version of the one model.
inline constexpr absl::string_view kModelVersion = "1";

// What a model may be given. Those of one element may come as parameters of
// the request instead, by the same names.
struct ModelInputInfo {
  absl::string_view name;
  std::vector<Datatype> datatypes;  // the first is the one that is stated
  bool list;                        // any number of elements
};
absl::Span<const ModelInputInfo> ModelInputs();

struct ModelOutputInfo {
  ModelOutput output;
  absl::string_view name;
  Datatype datatype;
  bool list;
};
absl::Span<const ModelOutputInfo> ModelOutputs();

// NotFound (MODEL_NOT_FOUND) unless this is the model; an empty version is its
// only one.
absl::Status CheckModel(absl::string_view name, absl::string_view version,
                        absl::string_view model_name);

// Errors of CheckModel and ReadTensor. InvalidArgument (INVALID_REQUEST): an
// input, parameter or output that the model does not have, that is given
// twice, that is missing, or whose value cannot be meant. Ranges of sampling
// and stopping are checked by ToGenerateOptions.
absl::StatusOr<InferCall> ReadInferRequest(
    const oip::ModelInferRequest& request, absl::string_view model_name);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_OPEN_INFERENCE_REQUEST_H_
