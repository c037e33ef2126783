#include "kernels/quant/q4_0.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
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

// One block from 32 nibbles (code + 8) and the f16 bits of its scale.
void WriteBlock(const uint8_t* nibbles, uint16_t d, uint8_t* block) {
  block[0] = static_cast<uint8_t>(d & 0xff);
  block[1] = static_cast<uint8_t>(d >> 8);
  for (int j = 0; j < kGroup / 2; ++j) {
    block[2 + j] = static_cast<uint8_t>(nibbles[j] | (nibbles[j + 16] << 4));
  }
}

}  // namespace

absl::StatusOr<std::vector<uint8_t>> PackQ4_0(const GridMatrix& matrix) {
  if (matrix.grid != &kInt4G32) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Q4_0 holds int4_g32, the matrix is on ", matrix.grid->name));
  }
  absl::Status status = ValidateMatrix(matrix);
  if (!status.ok()) return status;
  std::vector<uint8_t> blocks(matrix.scales.size() * kQ4_0BlockBytes);
  for (size_t g = 0; g < matrix.scales.size(); ++g) {
    const uint16_t d = kernels::FloatToF16(matrix.scales[g]);
    if (!std::isfinite(matrix.scales[g]) ||
        kernels::F16ToFloat(d) != matrix.scales[g]) {
      const int64_t groups = matrix.cols / kGroup;
      return absl::InvalidArgumentError(absl::StrCat(
          "Q4_0: the scale ", matrix.scales[g], " of row ", g / groups,
          ", group ", g % groups, " is not exact in f16"));
    }
    uint8_t nibbles[kGroup];
    for (int i = 0; i < kGroup; ++i) {
      nibbles[i] = static_cast<uint8_t>(matrix.codes[g * kGroup + i] + 8);
    }
    WriteBlock(nibbles, d, blocks.data() + g * kQ4_0BlockBytes);
  }
  return blocks;
}

absl::StatusOr<GridMatrix> UnpackQ4_0(absl::Span<const uint8_t> blocks,
                                      int64_t rows, int64_t cols) {
  absl::Status status =
      CheckMatrixSize("Q4_0 bytes", rows, cols, kGroup, kQ4_0BlockBytes,
                      static_cast<int64_t>(blocks.size()));
  if (!status.ok()) return status;
  GridMatrix out;
  out.rows = rows;
  out.cols = cols;
  out.scales.resize(blocks.size() / kQ4_0BlockBytes);
  out.codes.resize(out.scales.size() * kGroup);
  for (size_t g = 0; g < out.scales.size(); ++g) {
    const uint8_t* block = blocks.data() + g * kQ4_0BlockBytes;
    out.scales[g] =
        kernels::F16ToFloat(static_cast<uint16_t>(block[0] | (block[1] << 8)));
    if (!std::isfinite(out.scales[g])) {
      return absl::InvalidArgumentError(
          absl::StrCat("Q4_0: the scale of block ", g, " is not finite"));
    }
    int8_t* codes = out.codes.data() + g * kGroup;
    for (int j = 0; j < kGroup / 2; ++j) {
      codes[j] = static_cast<int8_t>((block[2 + j] & 15) - 8);
      codes[j + 16] = static_cast<int8_t>((block[2 + j] >> 4) - 8);
    }
  }
  return out;
}

absl::StatusOr<std::vector<uint8_t>> EncodeQ4_0(absl::Span<const float> w,
                                                int64_t rows, int64_t cols) {
  absl::Status status = CheckMatrixSize("Q4_0 weights", rows, cols, kGroup,
                                        kGroup, static_cast<int64_t>(w.size()));
  if (!status.ok()) return status;
  const size_t groups = w.size() / kGroup;
  std::vector<uint8_t> blocks(groups * kQ4_0BlockBytes);
  for (size_t g = 0; g < groups; ++g) {
    const float* group = w.data() + g * kGroup;
    float amax = 0.0f;
    float extreme = 0.0f;  // Of equal magnitudes the first.
    bool finite = true;
    for (int i = 0; i < kGroup; ++i) {
      finite = finite && std::isfinite(group[i]);
      if (std::fabs(group[i]) > amax) {
        amax = std::fabs(group[i]);
        extreme = group[i];
      }
    }
    const float d = extreme / -8;
    const uint16_t d16 = kernels::FloatToF16(d);
    if (!finite || !std::isfinite(kernels::F16ToFloat(d16))) {
      return absl::InvalidArgumentError(absl::StrCat(
          "Q4_0: a weight in elements ", g * kGroup, "..",
          g * kGroup + kGroup - 1, " is ",
          finite ? "larger than f16 scales can hold" : "not finite"));
    }
    // The inverse overflows for zero and for groups below 2^-121 or so, whose d
    // is zero in f16 whatever the codes.
    float inverse = 1.0f / d;
    if (!std::isfinite(inverse)) inverse = 0.0f;
    uint8_t nibbles[kGroup];
    for (int i = 0; i < kGroup; ++i) {
      // Truncation of a value that lies in 0.5..16.5.
      const int code = static_cast<int8_t>(group[i] * inverse + 8.5f);
      nibbles[i] = static_cast<uint8_t>(code < 15 ? code : 15);
    }
    WriteBlock(nibbles, d16, blocks.data() + g * kQ4_0BlockBytes);
  }
  return blocks;
}

}  // namespace onegrid::quant
