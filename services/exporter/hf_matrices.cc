#include "services/exporter/hf_matrices.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "kernels/quant/exact_grid.h"
#include "kernels/quant/grid.h"
#include "kernels/quant/grid_blocks.h"
#include "kernels/quant/grid_recovery.h"
#include "services/common/error_info.h"
#include "services/exporter/grid_encode.h"
#include "services/exporter/packed_encode.h"
#include "services/model/packed_matrix.h"
#include "services/model/tensor_ops.h"

namespace onegrid::exporter {
namespace {

// Encodes a packed matrix part by part, from the first row to the last, and
// then reports what could not stay.
class PackedEncoder {
 public:
  PackedEncoder(const model::HfCheckpoint& checkpoint, std::string module,
                std::string gguf_name, const quant::Grid& grid, ScaleRule rule,
                BaseBuilder& builder)
      : checkpoint_(checkpoint),
        module_(std::move(module)),
        gguf_name_(std::move(gguf_name)),
        rows_(checkpoint.PackedShapeOf(module_).rows),
        grid_(grid),
        rule_(rule),
        builder_(builder) {}

  absl::StatusOr<GridEncoding> operator()(int64_t begin, int64_t end) {
    ASSIGN_OR_RETURN(const model::PackedMatrix part,
                     checkpoint_.PackedRows(module_, begin, end));
    ASSIGN_OR_RETURN(GridEncoding encoding,
                     EncodePacked(gguf_name_, part, grid_, rule_));
    sum_.groups += encoding.groups;
    sum_.recovery.snapped += encoding.recovery.snapped;
    sum_.recovery.fallback += encoding.recovery.fallback;
    if (end == rows_) builder_.ReportOffGrid(gguf_name_, sum_);
    return encoding;
  }

 private:
  const model::HfCheckpoint& checkpoint_;
  const std::string module_;
  const std::string gguf_name_;
  const int64_t rows_;
  const quant::Grid& grid_;
  const ScaleRule rule_;
  BaseBuilder& builder_;
  GridEncoding sum_;
};

// A table in the blocks of `grid`, encoded part by part when the file is
// written.
absl::Status AddEncodedTable(const model::TableSpec& spec,
                             const quant::Grid& grid,
                             BaseBuilder::EncodeRows encode,
                             BaseBuilder& builder) {
  builder.CountParameters(spec.rows * spec.cols);
  return builder.writer().AddProduced(
      spec.gguf_name, quant::BlockType(grid), {spec.cols, spec.rows},
      [&builder, spec, encode = std::move(encode)](
          const model::GgufWriter::Sink& sink) -> absl::Status {
        for (const auto [begin, end] : model::RowParts(spec.rows, spec.cols)) {
          ASSIGN_OR_RETURN(const GridEncoding encoding, encode(begin, end));
          ASSIGN_OR_RETURN(const std::vector<uint8_t> blocks,
                           quant::PackBlocks(encoding.matrix));
          RETURN_IF_ERROR(sink(blocks));
        }
        return builder.TensorDone();
      });
}

// A matrix of floats.
struct Floats {
  std::string gguf_name;
  std::string hf_name;
  int64_t rows;
  int64_t cols;
  BaseBuilder::TableRows values;  // of rows [begin, end)
};

// The grid that all rows lie on exactly, or null.
absl::StatusOr<const quant::Grid*> ExactGridOf(const Floats& floats,
                                               ScaleRule rule) {
  const quant::Grid* grid = nullptr;
  for (const auto [begin, end] : model::RowParts(floats.rows, floats.cols)) {
    ASSIGN_OR_RETURN(const std::vector<float> values,
                     floats.values(begin, end));
    const auto exact = quant::FindExactGrid(values, end - begin, floats.cols);
    if (!exact.has_value() || (grid != nullptr && exact->grid != grid)) {
      return nullptr;
    }
    if (rule == ScaleRule::kDualExact &&
        !std::all_of(exact->scales.begin(), exact->scales.end(),
                     quant::IsDualExact)) {
      return nullptr;
    }
    grid = exact->grid;
  }
  return grid;
}

// Whether all groups lie on 4-bit lattices that int4_g32 holds, as tables of
// quantization-aware-trained checkpoints may.
absl::StatusOr<bool> IsOnLattice(const Floats& floats, int threads) {
  if (floats.cols % quant::kGroup != 0) return false;
  int64_t on_grid = 0;
  for (const auto [begin, end] : model::RowParts(floats.rows, floats.cols)) {
    ASSIGN_OR_RETURN(const std::vector<float> values,
                     floats.values(begin, end));
    // Most that are on none show it in the first group.
    const auto first = absl::MakeConstSpan(values).first(quant::kGroup);
    const bool zeros = std::all_of(first.begin(), first.end(),
                                   [](float value) { return value == 0; });
    if (!zeros && !quant::FindLattice(first).has_value()) return false;
    ASSIGN_OR_RETURN(const GridEncoding encoding,
                     EncodeFloats(floats.gguf_name, values, end - begin,
                                  floats.cols, quant::kInt4G32, threads));
    if (encoding.recovery.fallback > 0) return false;
    on_grid += encoding.recovery.on_grid;
  }
  return on_grid > 0;
}

// The values were on a grid when they were read first.
absl::Status ChangedFile(const Floats& floats) {
  return common::MakeError(
      absl::StatusCode::kAborted, "FILE_CHANGED",
      absl::StrCat("tensor ", floats.hf_name,
                   ": its file was changed while it was imported"),
      {{"tensor", floats.hf_name}});
}

// Of floats that ExactGridOf has found on `grid`.
BaseBuilder::EncodeRows ExactEncoder(const Floats& floats,
                                     const quant::Grid& grid) {
  return [floats, &grid](int64_t begin,
                         int64_t end) -> absl::StatusOr<GridEncoding> {
    ASSIGN_OR_RETURN(const std::vector<float> values,
                     floats.values(begin, end));
    auto exact = quant::FindExactGrid(values, end - begin, floats.cols);
    if (!exact.has_value() || exact->grid != &grid) return ChangedFile(floats);
    GridEncoding encoding;
    encoding.matrix = *std::move(exact);
    encoding.groups = static_cast<int64_t>(encoding.matrix.scales.size());
    encoding.groups_kept = encoding.recovery.on_grid = encoding.groups;
    for (const float value : values) {
      encoding.weight_squares += static_cast<double>(value) * value;
    }
    return encoding;
  };
}

// Of floats that IsOnLattice has found there. Reports, after the last row, what
// could not stay.
BaseBuilder::EncodeRows LatticeEncoder(const Floats& floats, int threads,
                                       BaseBuilder& builder) {
  return
      [floats, threads, &builder, sum = GridEncoding{}](
          int64_t begin, int64_t end) mutable -> absl::StatusOr<GridEncoding> {
        ASSIGN_OR_RETURN(const std::vector<float> values,
                         floats.values(begin, end));
        ASSIGN_OR_RETURN(GridEncoding encoding,
                         EncodeFloats(floats.gguf_name, values, end - begin,
                                      floats.cols, quant::kInt4G32, threads));
        if (encoding.recovery.fallback > 0) return ChangedFile(floats);
        sum.groups += encoding.groups;
        sum.recovery.snapped += encoding.recovery.snapped;
        if (end == floats.rows) builder.ReportOffGrid(floats.gguf_name, sum);
        return encoding;
      };
}

}  // namespace

absl::Status AddHfLinear(const model::HfCheckpoint& checkpoint,
                         const model::LinearSpec& spec, int threads,
                         BaseBuilder& builder) {
  if (checkpoint.IsPacked(spec.hf_name)) {
    ASSIGN_OR_RETURN(const quant::Grid* packed_grid,
                     checkpoint.PackedGrid(spec.hf_name));
    return builder.AddLinear(
        spec, *packed_grid,
        PackedEncoder(checkpoint, spec.hf_name, spec.gguf_name, *packed_grid,
                      ScaleRule::kDualExact, builder));
  }
  const Floats floats{spec.gguf_name, spec.HfWeightName(), spec.out, spec.in,
                      [&checkpoint, spec](int64_t begin, int64_t end) {
                        return checkpoint.Rows(spec.HfWeightName(), begin, end,
                                               spec.in);
                      }};
  const quant::Grid* grid = &BaseGrid(spec);
  if (spec.layer < 0) {
    ASSIGN_OR_RETURN(const quant::Grid* exact,
                     ExactGridOf(floats, ScaleRule::kDualExact));
    if (exact != nullptr) {
      return builder.AddLinear(spec, *exact, ExactEncoder(floats, *exact));
    }
    ASSIGN_OR_RETURN(const bool lattice, IsOnLattice(floats, threads));
    if (lattice) grid = &quant::kInt4G32;
  }
  return builder.AddLinear(
      spec, *grid,
      [floats, grid, threads](int64_t begin,
                              int64_t end) -> absl::StatusOr<GridEncoding> {
        ASSIGN_OR_RETURN(const std::vector<float> values,
                         floats.values(begin, end));
        return EncodeFloats(floats.gguf_name, values, end - begin, floats.cols,
                            *grid, threads);
      });
}

absl::Status AddHfTable(const model::HfCheckpoint& checkpoint,
                        const model::TableSpec& spec, int threads,
                        BaseBuilder& builder) {
  const std::string module(absl::StripSuffix(spec.hf_name, ".weight"));
  if (checkpoint.IsPacked(module)) {
    ASSIGN_OR_RETURN(const quant::Grid* grid, checkpoint.PackedGrid(module));
    return AddEncodedTable(spec, *grid,
                           PackedEncoder(checkpoint, module, spec.gguf_name,
                                         *grid, ScaleRule::kF16, builder),
                           builder);
  }
  const Floats floats{spec.gguf_name, spec.hf_name, spec.rows, spec.cols,
                      [&checkpoint, spec](int64_t begin, int64_t end) {
                        return checkpoint.Rows(spec.hf_name, begin, end,
                                               spec.cols);
                      }};
  ASSIGN_OR_RETURN(const quant::Grid* grid,
                   ExactGridOf(floats, ScaleRule::kF16));
  if (grid != nullptr) {
    return AddEncodedTable(spec, *grid, ExactEncoder(floats, *grid), builder);
  }
  ASSIGN_OR_RETURN(const bool lattice, IsOnLattice(floats, threads));
  if (lattice) {
    return AddEncodedTable(spec, quant::kInt4G32,
                           LatticeEncoder(floats, threads, builder), builder);
  }
  return builder.AddTable(spec, floats.values);
}

}  // namespace onegrid::exporter
