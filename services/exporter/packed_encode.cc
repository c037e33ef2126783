#include "services/exporter/packed_encode.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/base/float_types.h"
#include "services/common/error_info.h"

namespace onegrid::exporter {
namespace {

using quant::Grid;
using quant::GridMatrix;

absl::Status Unsupported(absl::string_view name, absl::string_view what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "UNSUPPORTED_TENSOR",
                           absl::StrCat("tensor ", name, ": ", what),
                           {{"tensor", std::string(name)}});
}

bool IsF16(float x) { return kernels::F16ToFloat(kernels::FloatToF16(x)) == x; }

// One group of the grid, on the way from the file.
class Group {
 public:
  Group(absl::Span<const int8_t> codes, float scale, const Grid& grid,
        ScaleRule rule)
      : codes_(codes), scale_(scale), grid_(grid), rule_(rule) {}

  // Writes the group and counts what became of it.
  absl::Status Encode(int8_t* codes, float& scale,
                      quant::RecoveryCounts& counts) const {
    if (scale_ > 0 && Keeps(scale_) && GridHasCodes(1)) {
      return Put(1, scale_, codes, scale, counts);
    }
    if (std::all_of(codes_.begin(), codes_.end(),
                    [](int8_t code) { return code == 0; })) {
      return Put(1, quant::kMinScale, codes, scale, counts);
    }
    const int sign = scale_ < 0 ? -1 : 1;
    const float size = std::fabs(scale_);
    if (GridHasCodes(sign)) {
      if (Keeps(size)) return Put(sign, size, codes, scale, counts);
      const float snapped = Snap(size);
      // Rounding to 8 bits moves a scale by 2^-8 at most; the ends of the
      // range by more.
      if (std::fabs(snapped - size) <= 0x1p-8f * size) {
        ++counts.snapped;
        return Put(sign, snapped, codes, scale, counts);
      }
    }
    return EncodeAfresh(codes, scale, counts);
  }

 private:
  bool Keeps(float scale) const {
    return rule_ == ScaleRule::kF16 ? scale > 0 && IsF16(scale)
                                    : quant::IsDualExact(scale);
  }

  // The nearest scale that may be kept, if one is near.
  float Snap(float scale) const {
    return rule_ == ScaleRule::kF16
               ? kernels::F16ToFloat(kernels::FloatToF16(scale))
               : quant::SnapScale(scale);
  }

  bool GridHasCodes(int sign) const {
    return std::all_of(codes_.begin(), codes_.end(), [&](int8_t code) {
      return sign * code >= grid_.min_code && sign * code <= grid_.max_code;
    });
  }

  absl::Status Put(int sign, float scale, int8_t* codes, float& out,
                   quant::RecoveryCounts& counts) const {
    std::transform(codes_.begin(), codes_.end(), codes,
                   [sign](int8_t code) { return sign * code; });
    out = scale;
    ++counts.on_grid;
    return absl::OkStatus();
  }

  absl::Status EncodeAfresh(int8_t* codes, float& scale,
                            quant::RecoveryCounts& counts) const {
    std::vector<float> values;
    for (const int8_t code : codes_) {
      values.push_back(static_cast<float>(code) * scale_);
    }
    ASSIGN_OR_RETURN(
        const GridMatrix encoded,
        quant::EncodeMatrix(values, 1, static_cast<int64_t>(values.size()),
                            grid_));
    std::copy(encoded.codes.begin(), encoded.codes.end(), codes);
    scale = encoded.scales[0];
    ++counts.fallback;
    return absl::OkStatus();
  }

  const absl::Span<const int8_t> codes_;
  const float scale_;
  const Grid& grid_;
  const ScaleRule rule_;
};

// What the group that begins at element `begin` has become, measured.
void Measure(absl::Span<const int8_t> codes, float source_scale, size_t begin,
             GridEncoding& encoding) {
  const GridMatrix& matrix = encoding.matrix;
  const float scale = matrix.scales[begin / matrix.grid->group];
  bool same = true;
  for (size_t i = 0; i < codes.size(); ++i) {
    const float value = static_cast<float>(codes[i]) * source_scale;
    const float coded = static_cast<float>(matrix.codes[begin + i]) * scale;
    same = same && coded == value;
    const double error = static_cast<double>(coded) - value;
    encoding.error_squares += error * error;
    encoding.weight_squares += static_cast<double>(value) * value;
  }
  encoding.groups_kept += same ? 1 : 0;
}

}  // namespace

absl::StatusOr<GridEncoding> EncodePacked(absl::string_view name,
                                          const model::PackedMatrix& matrix,
                                          const Grid& grid, ScaleRule rule) {
  if (matrix.group % grid.group != 0) {
    return Unsupported(
        name, absl::StrCat("groups of ", matrix.group, " are not whole groups ",
                           "of ", grid.name));
  }
  GridEncoding encoding;
  encoding.matrix = {
      matrix.rows, matrix.cols, std::vector<int8_t>(matrix.codes.size()),
      std::vector<float>(matrix.codes.size() / grid.group), &grid};
  encoding.groups = static_cast<int64_t>(encoding.matrix.scales.size());
  for (int64_t g = 0; g < encoding.groups; ++g) {
    const int64_t begin = g * grid.group;
    const float scale = matrix.scales[begin / matrix.group];
    const auto codes =
        absl::MakeConstSpan(matrix.codes).subspan(begin, grid.group);
    const absl::Status status =
        Group(codes, scale, grid, rule)
            .Encode(encoding.matrix.codes.data() + begin,
                    encoding.matrix.scales[g], encoding.recovery);
    if (!status.ok()) {
      return Unsupported(
          name, absl::StrCat("row ", matrix.first_row + begin / matrix.cols,
                             ": ", status.message()));
    }
    Measure(codes, scale, begin, encoding);
  }
  return encoding;
}

}  // namespace onegrid::exporter
