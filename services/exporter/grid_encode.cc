#include "services/exporter/grid_encode.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid_recovery.h"
#include "kernels/quant/q4_0.h"
#include "services/common/error_info.h"
#include "services/model/tensor_ops.h"

namespace onegrid::exporter {
namespace {

using quant::GgmlType;
using quant::GridMatrix;
using quant::GridRecovery;
using quant::kGroup;
using quant::RecoveryCounts;

void Add(const RecoveryCounts& part, RecoveryCounts& sum) {
  sum.on_grid += part.on_grid;
  sum.zero += part.zero;
  sum.fallback += part.fallback;
  sum.snapped += part.snapped;
  sum.unheld += part.unheld;
}

using Encoder = std::function<absl::StatusOr<GridRecovery>(
    absl::Span<const float> w, int64_t rows, int64_t cols)>;

// The least-squares encoder, in the shape of the other one.
Encoder EncodeAfresh(const quant::Grid& grid) {
  return [&grid](absl::Span<const float> w, int64_t rows,
                 int64_t cols) -> absl::StatusOr<GridRecovery> {
    GridRecovery encoded;
    ASSIGN_OR_RETURN(encoded.matrix, quant::EncodeMatrix(w, rows, cols, grid));
    return encoded;
  };
}

// Encodes w [rows, cols] in up to `threads` slices of whole rows.
absl::StatusOr<GridRecovery> EncodeRows(absl::Span<const float> w, int64_t rows,
                                        int64_t cols, int threads,
                                        const Encoder& encode) {
  const int64_t slices = std::clamp<int64_t>(threads, 1, rows);
  std::vector<absl::StatusOr<GridRecovery>> parts(slices, GridRecovery{});
  std::vector<std::thread> workers;
  const auto encode_slice = [&](int64_t slice) {
    const int64_t begin = rows * slice / slices;
    const int64_t end = rows * (slice + 1) / slices;
    parts[slice] = encode(w.subspan(begin * cols, (end - begin) * cols),
                          end - begin, cols);
  };
  for (int64_t i = 1; i < slices; ++i) workers.emplace_back(encode_slice, i);
  encode_slice(0);
  for (std::thread& worker : workers) worker.join();
  GridRecovery whole;
  whole.matrix.rows = rows;
  whole.matrix.cols = cols;
  whole.matrix.grid = parts[0].ok() ? parts[0]->matrix.grid : &quant::kInt4G32;
  whole.matrix.codes.reserve(rows * cols);
  for (const absl::StatusOr<GridRecovery>& part : parts) {
    RETURN_IF_ERROR(part.status());
    whole.matrix.codes.insert(whole.matrix.codes.end(),
                              part->matrix.codes.begin(),
                              part->matrix.codes.end());
    whole.matrix.scales.insert(whole.matrix.scales.end(),
                               part->matrix.scales.begin(),
                               part->matrix.scales.end());
    Add(part->counts, whole.counts);
  }
  return whole;
}

// Copies the groups of `source` that the grid allows over those of `target`.
// A negative scale becomes positive by negating the codes, if none is -8.
void KeepGridGroups(const GridMatrix& source, GridMatrix& target) {
  for (size_t g = 0; g < source.scales.size(); ++g) {
    const float scale = source.scales[g];
    if (!quant::IsDualExact(std::fabs(scale))) continue;
    const auto begin = source.codes.begin() + g * kGroup;
    const auto end = begin + kGroup;
    if (scale < 0 && std::find(begin, end, -8) != end) continue;
    const int sign = scale < 0 ? -1 : 1;
    std::transform(begin, end, target.codes.begin() + g * kGroup,
                   [sign](int8_t code) { return sign * code; });
    target.scales[g] = std::fabs(scale);
  }
}

void Measure(absl::Span<const float> w, GridEncoding& encoding) {
  const GridMatrix& matrix = encoding.matrix;
  encoding.groups = static_cast<int64_t>(matrix.scales.size());
  const int group = matrix.grid->group;
  for (int64_t g = 0; g < encoding.groups; ++g) {
    bool same = true;
    for (int i = 0; i < group; ++i) {
      const float value = w[g * group + i];
      const float coded =
          static_cast<float>(matrix.codes[g * group + i]) * matrix.scales[g];
      same = same && coded == value;
      const double error = static_cast<double>(coded) - value;
      encoding.error_squares += error * error;
      encoding.weight_squares += static_cast<double>(value) * value;
    }
    encoding.groups_kept += same ? 1 : 0;
  }
}

}  // namespace

const quant::Grid& BaseGrid(const model::LinearSpec& spec) {
  return spec.layer < 0 ? quant::kInt8G32 : quant::kInt4G32;
}

absl::Status CheckFinite(absl::string_view name,
                         absl::Span<const float> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "UNSUPPORTED_TENSOR",
        absl::StrCat("tensor ", name, " has a value that is not finite, at ",
                     "element ", i),
        {{"tensor", std::string(name)}});
  }
  return absl::OkStatus();
}

absl::StatusOr<GridEncoding> EncodeFloats(absl::string_view name,
                                          absl::Span<const float> values,
                                          int64_t rows, int64_t cols,
                                          const quant::Grid& grid,
                                          int threads) {
  RETURN_IF_ERROR(CheckFinite(name, values));
  absl::StatusOr<GridRecovery> recovery =
      EncodeRows(values, rows, cols, threads,
                 &grid == &quant::kInt4G32 ? Encoder(quant::RecoverMatrix)
                                           : EncodeAfresh(grid));
  if (!recovery.ok()) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "UNSUPPORTED_TENSOR",
        absl::StrCat("tensor ", name, ": ", recovery.status().message()),
        {{"tensor", std::string(name)}});
  }
  GridEncoding encoding;
  encoding.matrix = std::move(recovery->matrix);
  encoding.recovery = recovery->counts;
  Measure(values, encoding);
  return encoding;
}

absl::StatusOr<GridEncoding> EncodeOnGrid(const model::GgufFile::Tensor& tensor,
                                          int64_t begin, int64_t end,
                                          const quant::Grid& grid,
                                          int threads) {
  const int64_t rows = end - begin, cols = tensor.cols();
  ASSIGN_OR_RETURN(const std::vector<float> values,
                   model::DequantizeRows(tensor, begin, end));
  if (tensor.type == GgmlType::kF32 || tensor.type == GgmlType::kF16 ||
      tensor.type == GgmlType::kBF16) {
    return EncodeFloats(tensor.name, values, rows, cols, grid, threads);
  }
  RETURN_IF_ERROR(CheckFinite(tensor.name, values));
  ASSIGN_OR_RETURN(GridRecovery encoded,
                   EncodeRows(values, rows, cols, threads, EncodeAfresh(grid)));
  GridEncoding encoding;
  encoding.matrix = std::move(encoded.matrix);
  if (tensor.type == GgmlType::kQ4_0 && &grid == &quant::kInt4G32) {
    const size_t row_bytes =
        tensor.data.size() / static_cast<size_t>(tensor.rows());
    ASSIGN_OR_RETURN(const GridMatrix source,
                     quant::UnpackQ4_0(tensor.data.subspan(begin * row_bytes,
                                                           rows * row_bytes),
                                       rows, cols));
    KeepGridGroups(source, encoding.matrix);
  }
  Measure(values, encoding);
  return encoding;
}

}  // namespace onegrid::exporter
