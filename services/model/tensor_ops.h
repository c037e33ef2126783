#ifndef SERVICES_MODEL_TENSOR_OPS_H_
#define SERVICES_MODEL_TENSOR_OPS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "services/model/gguf_reader.h"

namespace onegrid::model {

// Decodes a tensor of any supported type to f32, row-major [rows, cols].
// Allocates 4 bytes per element. Unimplemented: no decoder for the type.
absl::StatusOr<std::vector<float>> DequantizeTensor(
    const GgufFile::Tensor& tensor);

// The same of rows [begin, end).
absl::StatusOr<std::vector<float>> DequantizeRows(
    const GgufFile::Tensor& tensor, int64_t begin, int64_t end);

// Rows of `cols` elements to hold at once, so that work on a large matrix takes
// no more than some hundred MB; at least 1.
int64_t RowsAtOnce(int64_t cols);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_TENSOR_OPS_H_
