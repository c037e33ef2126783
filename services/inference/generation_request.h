// From a GenerateRequest to checked options.
#ifndef SERVICES_INFERENCE_GENERATION_REQUEST_H_
#define SERVICES_INFERENCE_GENERATION_REQUEST_H_

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/generation.pb.h"
#include "services/inference/generate_task.h"
#include "services/model/tokenizer.h"

namespace onegrid::inference {

// Most stop strings of one request, and bytes of one of them.
inline constexpr int kMaxStopStrings = 16;
inline constexpr int kMaxStopStringBytes = 1024;

// Of a request's priority, either way, and bytes of its caller and cache_salt.
inline constexpr int kMaxPriority = 100;
inline constexpr int kMaxPlaceBytes = 256;

// InvalidArgument (INVALID_REQUEST, or CONTEXT_TOO_LONG for a prompt that
// leaves no room in max_context tokens), naming the field.
absl::StatusOr<GenerateOptions> ToGenerateOptions(
    const v1::GenerateRequest& request, const model::Tokenizer& tokenizer,
    int max_context);

// InvalidArgument (INVALID_REQUEST), naming the field.
absl::StatusOr<TaskPlace> ToTaskPlace(int priority, const std::string& caller,
                                      const std::string& cache_salt);

// InvalidArgument: an id outside the vocabulary.
absl::Status CheckTokenIds(absl::Span<const int32_t> tokens,
                           int64_t vocab_size);

// InvalidArgument (INVALID_REQUEST).
absl::Status InvalidRequest(absl::string_view message);

// InvalidArgument (CONTEXT_TOO_LONG).
absl::Status ContextTooLong(int64_t tokens, int max_context);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_GENERATION_REQUEST_H_
