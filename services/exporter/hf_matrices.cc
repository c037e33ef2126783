#include "services/exporter/hf_matrices.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/quant/exact_grid.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"
#include "services/exporter/ct_encode.h"
#include "services/exporter/grid_encode.h"
#include "services/model/ct_matrix.h"
#include "services/model/tensor_ops.h"

namespace onegrid::exporter {
namespace {

absl::Status AddBlocks(const std::string& gguf_name,
                       const quant::GridMatrix& matrix, BaseBuilder& builder) {
  ASSIGN_OR_RETURN(std::vector<uint8_t> blocks, quant::PackBlocks(matrix));
  builder.CountParameters(matrix.rows * matrix.cols);
  RETURN_IF_ERROR(builder.writer().AddTensor(
      gguf_name, quant::BlockType(*matrix.grid), {matrix.cols, matrix.rows},
      std::move(blocks)));
  return builder.TensorDone();
}

}  // namespace

absl::Status AddHfLinear(const model::HfCheckpoint& checkpoint,
                         const model::LinearSpec& spec, int threads,
                         BaseBuilder& builder) {
  if (checkpoint.IsPacked(spec.hf_name)) {
    ASSIGN_OR_RETURN(const model::CtMatrix packed,
                     checkpoint.Packed(spec.hf_name));
    ASSIGN_OR_RETURN(const GridEncoding encoding,
                     EncodeCt(spec.gguf_name, packed, ScaleRule::kDualExact));
    builder.ReportOffGrid(spec.gguf_name, encoding);
    return builder.AddLinear(spec, encoding);
  }
  const quant::Grid& grid = BaseGrid(spec);
  return builder.AddLinear(
      spec, grid,
      [&checkpoint, &grid, spec, threads](
          int64_t begin, int64_t end) -> absl::StatusOr<GridEncoding> {
        ASSIGN_OR_RETURN(
            const std::vector<float> values,
            checkpoint.Rows(spec.HfWeightName(), begin, end, spec.in));
        return EncodeFloats(spec.gguf_name, values, end - begin, spec.in, grid,
                            threads);
      });
}

namespace {

// The grid that all rows lie on exactly, or null.
absl::StatusOr<const quant::Grid*> ExactGridOf(
    const model::TableSpec& spec, const BaseBuilder::TableRows& rows) {
  const quant::Grid* grid = nullptr;
  for (const auto [begin, end] : model::RowParts(spec.rows, spec.cols)) {
    ASSIGN_OR_RETURN(const std::vector<float> values, rows(begin, end));
    const auto exact = quant::FindExactGrid(values, end - begin, spec.cols);
    if (!exact.has_value() || (grid != nullptr && exact->grid != grid)) {
      return nullptr;
    }
    grid = exact->grid;
  }
  return grid;
}

// The values were on a grid when they were read first.
absl::Status ChangedFile(const model::TableSpec& spec) {
  return common::MakeError(
      absl::StatusCode::kAborted, "FILE_CHANGED",
      absl::StrCat("tensor ", spec.hf_name,
                   ": its file was changed while it was imported"),
      {{"tensor", spec.hf_name}});
}

}  // namespace

absl::Status AddHfTable(const model::HfCheckpoint& checkpoint,
                        const model::TableSpec& spec, BaseBuilder& builder) {
  const std::string module(absl::StripSuffix(spec.hf_name, ".weight"));
  if (checkpoint.IsPacked(module)) {
    ASSIGN_OR_RETURN(const model::CtMatrix packed, checkpoint.Packed(module));
    ASSIGN_OR_RETURN(const GridEncoding encoding,
                     EncodeCt(spec.gguf_name, packed, ScaleRule::kF16));
    builder.ReportOffGrid(spec.gguf_name, encoding);
    return AddBlocks(spec.gguf_name, encoding.matrix, builder);
  }
  const BaseBuilder::TableRows rows = [&checkpoint, spec](int64_t begin,
                                                          int64_t end) {
    return checkpoint.Rows(spec.hf_name, begin, end, spec.cols);
  };
  ASSIGN_OR_RETURN(const quant::Grid* grid, ExactGridOf(spec, rows));
  if (grid == nullptr) return builder.AddTable(spec, rows);
  builder.CountParameters(spec.rows * spec.cols);
  return builder.writer().AddProduced(
      spec.gguf_name, quant::BlockType(*grid), {spec.cols, spec.rows},
      [&builder, spec, rows,
       grid](const model::GgufWriter::Sink& sink) -> absl::Status {
        for (const auto [begin, end] : model::RowParts(spec.rows, spec.cols)) {
          ASSIGN_OR_RETURN(const std::vector<float> values, rows(begin, end));
          const auto exact =
              quant::FindExactGrid(values, end - begin, spec.cols);
          if (!exact.has_value() || exact->grid != grid) {
            return ChangedFile(spec);
          }
          ASSIGN_OR_RETURN(const std::vector<uint8_t> blocks,
                           quant::PackBlocks(*exact));
          RETURN_IF_ERROR(sink(blocks));
        }
        return builder.TensorDone();
      });
}

}  // namespace onegrid::exporter
