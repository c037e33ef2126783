#ifndef KERNELS_QUANT_SHAPE_CHECK_H_
#define KERNELS_QUANT_SHAPE_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace onegrid::quant {

// Ok if [rows, cols] is a matrix whose cols are a multiple of `block` and
// `found` == rows * (cols / block) * units_per_block. Otherwise InvalidArgument
// naming `what`, the expected and the found count. Overflow is caught.
absl::Status CheckMatrixSize(absl::string_view what, int64_t rows, int64_t cols,
                             int64_t block, int64_t units_per_block,
                             int64_t found);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_SHAPE_CHECK_H_
