#include "kernels/quant/q8_0.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/base/float_types.h"
#include "kernels/quant/shape_check.h"

namespace onegrid::quant {
namespace {

constexpr int kBlock = 32;

void WriteScale(uint16_t d, uint8_t* block) {
  block[0] = static_cast<uint8_t>(d & 0xff);
  block[1] = static_cast<uint8_t>(d >> 8);
}

}  // namespace

absl::StatusOr<std::vector<uint8_t>> PackQ8_0(const GridMatrix& matrix) {
  absl::Status status =
      CheckMatrixSize("Q8_0 codes", matrix.rows, matrix.cols, kBlock, kBlock,
                      static_cast<int64_t>(matrix.codes.size()));
  if (!status.ok()) return status;
  status = CheckMatrixSize("Q8_0 scales", matrix.rows, matrix.cols, kBlock, 1,
                           static_cast<int64_t>(matrix.scales.size()));
  if (!status.ok()) return status;
  std::vector<uint8_t> blocks(matrix.scales.size() * kQ8_0BlockBytes);
  for (size_t g = 0; g < matrix.scales.size(); ++g) {
    const uint16_t d = kernels::FloatToF16(matrix.scales[g]);
    if (!std::isfinite(matrix.scales[g]) ||
        kernels::F16ToFloat(d) != matrix.scales[g]) {
      return absl::InvalidArgumentError(
          absl::StrCat("Q8_0: the scale ", matrix.scales[g], " of block ", g,
                       " is not exact in f16"));
    }
    uint8_t* block = blocks.data() + g * kQ8_0BlockBytes;
    WriteScale(d, block);
    std::memcpy(block + 2, matrix.codes.data() + g * kBlock, kBlock);
  }
  return blocks;
}

absl::StatusOr<GridMatrix> UnpackQ8_0(absl::Span<const uint8_t> blocks,
                                      int64_t rows, int64_t cols) {
  absl::Status status =
      CheckMatrixSize("Q8_0 bytes", rows, cols, kBlock, kQ8_0BlockBytes,
                      static_cast<int64_t>(blocks.size()));
  if (!status.ok()) return status;
  GridMatrix out;
  out.grid = &kInt8G32;
  out.rows = rows;
  out.cols = cols;
  out.scales.resize(blocks.size() / kQ8_0BlockBytes);
  out.codes.resize(out.scales.size() * kBlock);
  for (size_t g = 0; g < out.scales.size(); ++g) {
    const uint8_t* block = blocks.data() + g * kQ8_0BlockBytes;
    out.scales[g] =
        kernels::F16ToFloat(static_cast<uint16_t>(block[0] | (block[1] << 8)));
    if (!std::isfinite(out.scales[g])) {
      return absl::InvalidArgumentError(
          absl::StrCat("Q8_0: the scale of block ", g, " is not finite"));
    }
    std::memcpy(out.codes.data() + g * kBlock, block + 2, kBlock);
  }
  return out;
}

absl::StatusOr<std::vector<uint8_t>> EncodeQ8_0(absl::Span<const float> w,
                                                int64_t rows, int64_t cols) {
  absl::Status status = CheckMatrixSize("Q8_0 weights", rows, cols, kBlock,
                                        kBlock, static_cast<int64_t>(w.size()));
  if (!status.ok()) return status;
  const size_t groups = w.size() / kBlock;
  std::vector<uint8_t> blocks(groups * kQ8_0BlockBytes);
  for (size_t g = 0; g < groups; ++g) {
    const float* group = w.data() + g * kBlock;
    float amax = 0.0f;
    bool finite = true;
    for (int i = 0; i < kBlock; ++i) {
      finite = finite && std::isfinite(group[i]);
      amax = std::fabs(group[i]) > amax ? std::fabs(group[i]) : amax;
    }
    const float d = amax / 127;
    const uint16_t d16 = kernels::FloatToF16(d);
    if (!finite || !std::isfinite(kernels::F16ToFloat(d16))) {
      return absl::InvalidArgumentError(absl::StrCat(
          "Q8_0: a weight in elements ", g * kBlock, "..",
          g * kBlock + kBlock - 1, " is ",
          finite ? "larger than f16 scales can hold" : "not finite"));
    }
    // The inverse overflows for zero and for groups below 2^-121 or so, whose d
    // is zero in f16 whatever the codes.
    float inverse = 1.0f / d;
    if (!std::isfinite(inverse)) inverse = 0.0f;
    uint8_t* block = blocks.data() + g * kQ8_0BlockBytes;
    WriteScale(d16, block);
    for (int i = 0; i < kBlock; ++i) {
      block[2 + i] = static_cast<uint8_t>(
          static_cast<int8_t>(std::round(group[i] * inverse)));
    }
  }
  return blocks;
}

}  // namespace onegrid::quant
