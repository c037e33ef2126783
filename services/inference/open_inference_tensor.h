// Tensors of the Open Inference Protocol: from the wire to checked elements,
// and back.
#ifndef SERVICES_INFERENCE_OPEN_INFERENCE_TENSOR_H_
#define SERVICES_INFERENCE_OPEN_INFERENCE_TENSOR_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/open_inference/grpc_predict_v2.pb.h"

namespace onegrid::inference {

namespace oip = ::inference;  // the protocol's package

// Those of the model's inputs and outputs.
enum class Datatype {
  kBool,
  kInt32,
  kInt64,
  kUint32,
  kUint64,
  kFp32,
  kFp64,
  kBytes
};

// "INT32"; "BYTES".
absl::string_view DatatypeName(Datatype datatype);

// Most elements of one tensor, and dimensions of its shape.
inline constexpr int64_t kMaxTensorElements = int64_t{1} << 20;
inline constexpr int kMaxTensorRank = 8;

// One element. Texts point into the message that they were read from.
using TensorElement =
    std::variant<bool, int64_t, uint64_t, double, absl::string_view>;

struct InputTensor {
  std::vector<int64_t> shape;
  std::vector<TensorElement> elements;  // as many as the shape says
};

// Reads one input. `allowed` are the datatypes it may have. `raw` holds its
// elements as bytes; null if they are in tensor.contents(). InvalidArgument
// (INVALID_REQUEST), naming the input, what was expected and what was found:
// another datatype; a shape without dimensions, with too many, with a negative
// one or of too many elements; another number of elements or bytes than those
// of the shape; elements in a list of another datatype, or in both places;
// shared memory.
absl::StatusOr<InputTensor> ReadTensor(
    const oip::ModelInferRequest::InferInputTensor& tensor,
    const std::string* raw, absl::Span<const Datatype> allowed);

// BYTES, INT32, UINT32 or FP32.
using OutputElements =
    std::variant<std::vector<std::string>, std::vector<int32_t>,
                 std::vector<uint32_t>, std::vector<float>>;

// Adds an output of one dimension, or of two whose first is 1 if `batched`, to
// a response whose other outputs are raw or not as well.
void AddOutput(absl::string_view name, const OutputElements& elements,
               bool batched, bool raw, oip::ModelInferResponse* response);

// InvalidArgument (INVALID_REQUEST) about `what` ("input \"stop\""), with all
// three in its metadata. Long and odd texts are shortened and escaped.
absl::Status WrongTensor(absl::string_view what, absl::string_view expected,
                         absl::string_view found);

// `text` in quotes, escaped, at most 64 bytes of it: fit for an error.
std::string Quoted(absl::string_view text);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_OPEN_INFERENCE_TENSOR_H_
