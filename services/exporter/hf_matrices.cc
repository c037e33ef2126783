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

namespace onegrid::exporter {
namespace {

absl::Status AddBlocks(const std::string& gguf_name,
                       const quant::GridMatrix& matrix, BaseBuilder& builder) {
  ASSIGN_OR_RETURN(std::vector<uint8_t> blocks, quant::PackBlocks(matrix));
  builder.CountParameters(matrix.rows * matrix.cols);
  return builder.writer().AddTensor(gguf_name, quant::BlockType(*matrix.grid),
                                    {matrix.cols, matrix.rows},
                                    std::move(blocks));
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
  ASSIGN_OR_RETURN(const std::vector<float> values,
                   checkpoint.Values(spec.HfWeightName()));
  ASSIGN_OR_RETURN(
      const GridEncoding encoding,
      EncodeFloats(spec.gguf_name, values, spec.out, spec.in, BaseGrid(spec),
                   threads));
  return builder.AddLinear(spec, encoding);
}

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
  ASSIGN_OR_RETURN(const std::vector<float> values,
                   checkpoint.Values(spec.hf_name));
  const std::optional<quant::GridMatrix> exact =
      quant::FindExactGrid(values, spec.rows, spec.cols);
  if (exact.has_value()) return AddBlocks(spec.gguf_name, *exact, builder);
  return builder.AddTable(spec, values);
}

}  // namespace onegrid::exporter
