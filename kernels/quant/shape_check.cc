#include "kernels/quant/shape_check.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace onegrid::quant {

absl::Status CheckMatrixSize(absl::string_view what, int64_t rows, int64_t cols,
                             int64_t block, int64_t units_per_block,
                             int64_t found) {
  if (rows < 0 || cols < 0 || cols % block != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": the shape [", rows, ", ", cols,
                     "] needs columns in a multiple of ", block));
  }
  int64_t row_units = 0;
  int64_t expected = 0;
  if (__builtin_mul_overflow(cols / block, units_per_block, &row_units) ||
      __builtin_mul_overflow(rows, row_units, &expected)) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, ": the size of shape [", rows, ", ", cols, "] overflows"));
  }
  if (found != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": shape [", rows, ", ", cols, "] needs ", expected,
                     ", found ", found));
  }
  return absl::OkStatus();
}

}  // namespace onegrid::quant
