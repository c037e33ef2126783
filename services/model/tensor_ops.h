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

struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// The rows of a matrix [rows, cols] from the first to the last, in parts of as
// many as `elements` hold, but at least one: so that work on a large matrix
// takes no more than some hundred MB. cols at least 1.
std::vector<RowRange> RowParts(int64_t rows, int64_t cols,
                               int64_t elements = int64_t{1} << 25);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_TENSOR_OPS_H_
