#ifndef SERVICES_MODEL_TENSOR_OPS_H_
#define SERVICES_MODEL_TENSOR_OPS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "services/model/gguf_reader.h"

namespace onegrid::model {

// Decodes a tensor of any supported type to f32, row-major [rows, cols].
// Allocates 4 bytes per element. Unimplemented: no decoder for the type.
absl::StatusOr<std::vector<float>> DequantizeTensor(
    const GgufFile::Tensor& tensor);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_TENSOR_OPS_H_
