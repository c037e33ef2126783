#include "services/finetuner/ptq.h"

#include <c10/core/GradMode.h>

#include <cstddef>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/finetuner/calibration.h"
#include "services/finetuner/gemma3_model.h"
#include "services/finetuner/gptq.h"
#include "services/finetuner/grid_tensor.h"
#include "services/finetuner/scale_fit.h"
#include "services/finetuner/tensor_file.h"

namespace onegrid::finetuner {
namespace {

absl::Status Stopped() {
  return absl::CancelledError("quantization was cancelled");
}

absl::StatusOr<std::vector<quant::GridMatrix>> RoundLinears(
    const FloatCheckpoint& checkpoint, const ModelGrids& grids,
    const LayerProgress& progress) {
  std::vector<quant::GridMatrix> linears;
  for (size_t i = 0; i < checkpoint.linears.size(); ++i) {
    ASSIGN_OR_RETURN(quant::GridMatrix matrix,
                     EncodeTensor(checkpoint.linears[i], *grids.linears[i]));
    linears.push_back(std::move(matrix));
    if (linears.size() % kLinearsPerLayer == 0 &&
        !progress(static_cast<int64_t>(linears.size()) / kLinearsPerLayer,
                  checkpoint.config.layers)) {
      return Stopped();
    }
  }
  return linears;
}

// GPTQ, layer by layer; a layer's inputs come from the rounded layers before
// it.
absl::StatusOr<std::vector<quant::GridMatrix>> RoundLinearsWithFeedback(
    const FloatCheckpoint& checkpoint, const ModelGrids& grids,
    absl::Span<const PackedSequence> calibration,
    const LayerProgress& progress) {
  Gemma3Model model(MakeSharedWeights(checkpoint, LongestSegment(calibration)),
                    checkpoint.linears, at::kFloat);
  CalibrationPass pass(model, calibration);
  std::vector<quant::GridMatrix> linears;
  for (int64_t layer = 0; layer < checkpoint.config.layers; ++layer) {
    const LayerStatistics statistics = pass.Observe(layer);
    for (int g = 0; g < kGroupsPerLayer; ++g) {
      const GroupSpan span = LinearsOf(static_cast<LinearGroup>(g));
      ASSIGN_OR_RETURN(
          const HessianFactor factor,
          FactorHessian(statistics[static_cast<size_t>(g)].hessian));
      for (int i = span.begin; i < span.end; ++i) {
        const auto linear = static_cast<size_t>(layer * kLinearsPerLayer + i);
        const at::Tensor& target = checkpoint.linears[linear];
        ASSIGN_OR_RETURN(const quant::GridMatrix nearest,
                         EncodeTensor(target, *grids.linears[linear]));
        linears.push_back(RoundWithFittedScales(
            target, nearest, statistics[static_cast<size_t>(g)].hessian,
            factor));
        model.SetLinear(static_cast<int64_t>(linear),
                        DequantizeTensor(linears.back()));
      }
    }
    pass.Advance(layer);
    if (!progress(layer + 1, checkpoint.config.layers)) return Stopped();
  }
  return linears;
}

absl::StatusOr<std::vector<quant::GridMatrix>> RoundBy(
    const FloatCheckpoint& checkpoint, const ModelGrids& grids,
    PtqMethod method, absl::Span<const PackedSequence> calibration,
    const LayerProgress& progress) {
  if (method == PtqMethod::kGptq) {
    return RoundLinearsWithFeedback(checkpoint, grids, calibration, progress);
  }
  return RoundLinears(checkpoint, grids, progress);
}

// Borrows the codes and scales.
absl::Status AddMatrices(
    const FloatCheckpoint& source, const QuantizedModel& quantized,
    const std::function<absl::Status(const std::string&,
                                     const quant::GridMatrix&)>& add) {
  for (size_t i = 0; i < source.specs.size(); ++i) {
    RETURN_IF_ERROR(add(source.specs[i].gguf_name, quantized.linears[i]));
  }
  return add(model::kGgufEmbedding, quantized.embedding);
}

}  // namespace

absl::StatusOr<PtqMethod> PtqMethodByName(absl::string_view name) {
  if (name == "rtn") return PtqMethod::kRtn;
  if (name == "gptq") return PtqMethod::kGptq;
  if (name == "awq") return PtqMethod::kAwq;
  return common::MakeError(absl::StatusCode::kInvalidArgument, "UNKNOWN_METHOD",
                           absl::StrCat("no method is named ", name,
                                        "; there are rtn, gptq and awq"),
                           {{"method", std::string(name)}});
}

absl::StatusOr<QuantizedModel> Quantize(
    const FloatCheckpoint& checkpoint, const ModelGrids& grids,
    PtqMethod method, absl::Span<const PackedSequence> calibration,
    const LayerProgress& progress) {
  const c10::NoGradGuard no_grad;
  if (method != PtqMethod::kRtn && calibration.empty()) {
    return common::MakeError(absl::StatusCode::kInvalidArgument, "EMPTY_TEXT",
                             "gptq and awq need calibration text");
  }
  FloatCheckpoint scaled;
  const FloatCheckpoint* from = &checkpoint;
  if (method == PtqMethod::kAwq) {
    ASSIGN_OR_RETURN(scaled,
                     ScaleChannels(checkpoint, grids, calibration, progress));
    from = &scaled;
  }
  QuantizedModel quantized;
  ASSIGN_OR_RETURN(quantized.linears,
                   RoundBy(*from, grids, method, calibration, progress));
  ASSIGN_OR_RETURN(quantized.embedding,
                   EncodeTensor(from->embedding, *grids.embedding));
  quantized.norms = from->norms;
  return quantized;
}

FloatCheckpoint Dequantize(const FloatCheckpoint& source,
                           const QuantizedModel& quantized) {
  FloatCheckpoint values;
  values.config = source.config;
  values.specs = source.specs;
  for (const quant::GridMatrix& matrix : quantized.linears) {
    values.linears.push_back(DequantizeTensor(matrix));
  }
  values.embedding = DequantizeTensor(quantized.embedding);
  values.norms = quantized.norms;
  return values;
}

absl::Status SaveQuantized(const FloatCheckpoint& source,
                           const QuantizedModel& quantized,
                           const std::string& path) {
  TensorFileWriter writer;
  // Wide types first, so that all are aligned.
  RETURN_IF_ERROR(AddMatrices(
      source, quantized,
      [&](const std::string& name, const quant::GridMatrix& matrix) {
        return writer.Add(
            name + ".scales",
            at::from_blob(const_cast<float*>(matrix.scales.data()),
                          {matrix.rows, matrix.cols / matrix.grid->group},
                          at::kFloat));
      }));
  const std::vector<model::NormSpec> norms = model::Gemma3Norms(source.config);
  for (size_t i = 0; i < norms.size(); ++i) {
    if (quantized.norms[i] == source.norms[i]) continue;
    RETURN_IF_ERROR(
        writer.Add(norms[i].gguf_name,
                   at::from_blob(const_cast<float*>(quantized.norms[i].data()),
                                 {norms[i].size}, at::kFloat)));
  }
  nlohmann::json grids = nlohmann::json::object();
  RETURN_IF_ERROR(AddMatrices(
      source, quantized,
      [&](const std::string& name, const quant::GridMatrix& matrix) {
        if (matrix.grid != &quant::kInt4G32) grids[name] = matrix.grid->name;
        return writer.Add(
            name + ".codes",
            at::from_blob(const_cast<int8_t*>(matrix.codes.data()),
                          {matrix.rows, matrix.cols}, at::kChar));
      }));
  writer.SetMetadata(
      {{"format", "onegrid.folded.v1"}, {"grids", grids.dump()}});
  return writer.WriteTo(path);
}

}  // namespace onegrid::finetuner
