#include "services/exporter/base_builder.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid_blocks.h"
#include "kernels/quant/q8_0.h"
#include "services/common/error_info.h"
#include "services/common/log.h"
#include "services/model/tensor_ops.h"

namespace onegrid::exporter {
namespace {

using quant::GgmlType;

constexpr uint32_t kQuantizationVersion = 2;

}  // namespace

std::map<std::string, model::GgufValue> BaseFileType() {
  return {{"general.file_type", kFileTypeQ4_0},
          {"general.quantization_version", kQuantizationVersion}};
}

void BaseBuilder::CountParameters(int64_t parameters) {
  report_.set_parameters(report_.parameters() + parameters);
}

void BaseBuilder::Count(const GridEncoding& encoding) {
  const quant::GridMatrix& matrix = encoding.matrix;
  CountParameters(matrix.rows * matrix.cols);
  const quant::RecoveryCounts& recovery = encoding.recovery;
  report_.set_groups(report_.groups() + encoding.groups);
  report_.set_groups_kept(report_.groups_kept() + encoding.groups_kept);
  report_.set_groups_on_grid(report_.groups_on_grid() + recovery.on_grid +
                             recovery.zero);
  report_.set_groups_snapped(report_.groups_snapped() + recovery.snapped);
  report_.set_groups_fallback(report_.groups_fallback() + recovery.fallback);
  error_squares_ += encoding.error_squares;
  weight_squares_ += encoding.weight_squares;
}

absl::Status BaseBuilder::AddLinear(const model::LinearSpec& spec,
                                    const quant::Grid& grid,
                                    EncodeRows encode) {
  weights_[&grid] += spec.out * spec.in;
  report_.set_tensors_on_grid(report_.tensors_on_grid() + 1);
  return writer_.AddProduced(
      spec.gguf_name, quant::BlockType(grid), spec.GgufDims(),
      [this, encode = std::move(encode), rows = spec.out,
       cols = spec.in](const model::GgufWriter::Sink& sink) -> absl::Status {
        for (const auto [begin, end] : model::RowParts(rows, cols)) {
          ASSIGN_OR_RETURN(const GridEncoding encoding, encode(begin, end));
          Count(encoding);
          ASSIGN_OR_RETURN(const std::vector<uint8_t> packed,
                           quant::PackBlocks(encoding.matrix));
          RETURN_IF_ERROR(sink(packed));
        }
        return tensor_done_();
      });
}

void BaseBuilder::ReportOffGrid(const std::string& gguf_name,
                                const GridEncoding& encoding) {
  const quant::RecoveryCounts& recovery = encoding.recovery;
  if (recovery.snapped + recovery.fallback == 0) return;
  v1::TensorOffGrid& tensor = *report_.add_tensors_off_grid();
  tensor.set_tensor(gguf_name);
  tensor.set_groups(encoding.groups);
  tensor.set_groups_snapped(recovery.snapped);
  tensor.set_groups_fallback(recovery.fallback);
  common::LogWarning("tensor_off_the_grid",
                     {{"tensor", gguf_name},
                      {"groups", encoding.groups},
                      {"groups_snapped", recovery.snapped},
                      {"groups_fallback", recovery.fallback}});
}

absl::Status BaseBuilder::AddTable(const model::TableSpec& spec,
                                   TableRows rows) {
  CountParameters(spec.rows * spec.cols);
  return writer_.AddProduced(
      spec.gguf_name, GgmlType::kQ8_0, {spec.cols, spec.rows},
      [this, spec, rows = std::move(rows)](
          const model::GgufWriter::Sink& sink) -> absl::Status {
        for (const auto [begin, end] : model::RowParts(spec.rows, spec.cols)) {
          ASSIGN_OR_RETURN(const std::vector<float> values, rows(begin, end));
          RETURN_IF_ERROR(CheckFinite(spec.gguf_name, values));
          const auto packed = quant::EncodeQ8_0(values, end - begin, spec.cols);
          if (!packed.ok()) {
            return common::MakeError(
                absl::StatusCode::kInvalidArgument, "UNSUPPORTED_TENSOR",
                absl::StrCat("tensor ", spec.gguf_name, ": ",
                             packed.status().message()),
                {{"tensor", spec.gguf_name}});
          }
          RETURN_IF_ERROR(sink(*packed));
        }
        return tensor_done_();
      });
}

absl::Status BaseBuilder::AddNorm(const model::NormSpec& spec,
                                  absl::Span<const float> values) {
  RETURN_IF_ERROR(CheckFinite(spec.gguf_name, values));
  CountParameters(static_cast<int64_t>(values.size()));
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  return writer_.AddTensor(
      spec.gguf_name, GgmlType::kF32, spec.GgufDims(),
      std::vector<uint8_t>(bytes, bytes + values.size() * sizeof(float)));
}

absl::StatusOr<v1::ImportReport> BaseBuilder::Finish(
    const std::string& out, const std::string& architecture,
    const std::string& tokenizer_sha256) {
  if (const uint32_t type = FileTypeOf(weights_); type != kFileTypeQ4_0) {
    writer_.Set("general.file_type", type);
  }
  RETURN_IF_ERROR(writer_.WriteTo(out));
  report_.set_architecture(architecture);
  report_.set_tokenizer_sha256(tokenizer_sha256);
  if (weight_squares_ > 0) {
    report_.set_relative_rms_error(std::sqrt(error_squares_ / weight_squares_));
  }
  if (report_.groups_fallback() > 0) {
    common::LogWarning("weights_off_the_grid",
                       {{"groups_fallback", report_.groups_fallback()},
                        {"groups_on_grid", report_.groups_on_grid()},
                        {"relative_rms_error", report_.relative_rms_error()}});
  }
  return std::move(report_);
}

}  // namespace onegrid::exporter
