#include "kernels/quant/q2_0.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/base/float_types.h"
#include "kernels/quant/grid.h"
#include "kernels/quant/shape_check.h"

namespace onegrid::quant {
namespace {

constexpr int kBlock = 64;
constexpr int kPerByte = 4;
static_assert(kInt2G64.group == kBlock);

}  // namespace

absl::StatusOr<std::vector<uint8_t>> PackQ2_0(const GridMatrix& matrix) {
  if (matrix.grid != &kInt2G64) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Q2_0 holds int2_g64, the matrix is on ", matrix.grid->name));
  }
  absl::Status status = ValidateMatrix(matrix);
  if (!status.ok()) return status;
  std::vector<uint8_t> blocks(matrix.scales.size() * kQ2_0BlockBytes);
  for (size_t g = 0; g < matrix.scales.size(); ++g) {
    const uint16_t d = kernels::FloatToF16(matrix.scales[g]);
    if (!std::isfinite(matrix.scales[g]) ||
        kernels::F16ToFloat(d) != matrix.scales[g]) {
      const int64_t groups = matrix.cols / kBlock;
      return absl::InvalidArgumentError(absl::StrCat(
          "Q2_0: the scale ", matrix.scales[g], " of row ", g / groups,
          ", group ", g % groups, " is not exact in f16"));
    }
    uint8_t* block = blocks.data() + g * kQ2_0BlockBytes;
    block[0] = static_cast<uint8_t>(d & 0xff);
    block[1] = static_cast<uint8_t>(d >> 8);
    for (int i = 0; i < kBlock; ++i) {
      const int bits = matrix.codes[g * kBlock + i] + 1;
      block[2 + i / kPerByte] |=
          static_cast<uint8_t>(bits << (2 * (i % kPerByte)));
    }
  }
  return blocks;
}

absl::StatusOr<GridMatrix> UnpackQ2_0(absl::Span<const uint8_t> blocks,
                                      int64_t rows, int64_t cols) {
  absl::Status status =
      CheckMatrixSize("Q2_0 bytes", rows, cols, kBlock, kQ2_0BlockBytes,
                      static_cast<int64_t>(blocks.size()));
  if (!status.ok()) return status;
  GridMatrix out;
  out.grid = &kInt2G64;
  out.rows = rows;
  out.cols = cols;
  out.scales.resize(blocks.size() / kQ2_0BlockBytes);
  out.codes.resize(out.scales.size() * kBlock);
  for (size_t g = 0; g < out.scales.size(); ++g) {
    const uint8_t* block = blocks.data() + g * kQ2_0BlockBytes;
    out.scales[g] =
        kernels::F16ToFloat(static_cast<uint16_t>(block[0] | (block[1] << 8)));
    if (!std::isfinite(out.scales[g])) {
      return absl::InvalidArgumentError(
          absl::StrCat("Q2_0: the scale of block ", g, " is not finite"));
    }
    for (int i = 0; i < kBlock; ++i) {
      const int bits = (block[2 + i / kPerByte] >> (2 * (i % kPerByte))) & 3;
      out.codes[g * kBlock + i] = static_cast<int8_t>(bits - 1);
    }
  }
  return out;
}

}  // namespace onegrid::quant
