// Options of a generation by their names in the Open Inference Protocol.
#ifndef SERVICES_INFERENCE_OPEN_INFERENCE_OPTIONS_H_
#define SERVICES_INFERENCE_OPEN_INFERENCE_OPTIONS_H_

#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/onegrid/v1/generation.pb.h"
#include "services/inference/open_inference_tensor.h"

namespace onegrid::inference {

enum class ModelOutput {
  kTextOutput,
  kOutputIds,
  kOutputLogProbs,
  // In the last response only, if there are several.
  kFinishReason,
  kNumInputTokens,
  kNumOutputTokens,
};
// A request that was read.
struct InferCall {
  std::string id;
  v1::GenerateRequest request;
  // A response for each piece of text.
  bool stream = false;
  // A last response without outputs that says nothing but that it is the last.
  bool empty_final_response = false;
  // How long the caller waits, besides its deadline.
  absl::Duration timeout = absl::InfiniteDuration();
  std::vector<ModelOutput> outputs;  // in the order of the request
  bool raw = false;                  // outputs as bytes, as the inputs were
  bool batched = false;              // shapes begin with a dimension of 1
  bool echo = false;                 // text_output begins with text_input
};

// A value of one element: its name, where it stands (for errors), what it is.
struct InferOption {
  absl::string_view name;
  std::string what;
  TensorElement value;
};

// The names that were given, to tell those given twice.
using GivenNames = std::set<absl::string_view>;

// InvalidArgument (INVALID_REQUEST) unless the option is of the type.
absl::StatusOr<int64_t> IntegerOf(const InferOption& option, int64_t least,
                                  int64_t most);
absl::StatusOr<bool> BooleanOf(const InferOption& option);

// Takes an option that the model has: text_input, max_tokens, stop (one of
// several), ignore_eos, stream, exclude_input_in_output, sampling_parameters,
// and those of sampling. InvalidArgument (INVALID_REQUEST): a value that cannot
// be meant.
absl::Status SetOption(const InferOption& option, GivenNames* given,
                       InferCall* call);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_OPEN_INFERENCE_OPTIONS_H_
