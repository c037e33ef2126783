#include "services/finetuner/ptq.h"

#include <c10/core/GradMode.h>

#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/finetuner/calibration.h"
#include "services/finetuner/folded_file.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/gptq.h"
#include "services/finetuner/grid_tensor.h"
#include "services/finetuner/scale_fit.h"

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
    const int layer = checkpoint.specs[i].layer;
    const bool ends_layer = i + 1 == checkpoint.specs.size() ||
                            checkpoint.specs[i + 1].layer != layer;
    if (ends_layer && layer >= 0 &&
        !progress(layer + 1, checkpoint.config.layer_count())) {
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
  GemmaModel model(MakeSharedWeights(checkpoint, LongestSegment(calibration)),
                   checkpoint.linears, at::kFloat);
  CalibrationPass pass(model, calibration);
  const LinearLayout layout(checkpoint.specs);
  std::vector<quant::GridMatrix> linears(checkpoint.linears.size());
  for (int64_t layer = 0; layer < checkpoint.config.layer_count(); ++layer) {
    const LayerStatistics statistics = pass.Observe(layer);
    for (int g = 0; g < kGroupsPerLayer; ++g) {
      const GroupSpan span = layout.Of(layer, static_cast<LinearGroup>(g));
      if (span.begin == span.end) continue;
      ASSIGN_OR_RETURN(
          const HessianFactor factor,
          FactorHessian(statistics[static_cast<size_t>(g)].hessian));
      for (int64_t i = span.begin; i < span.end; ++i) {
        const auto linear = static_cast<size_t>(i);
        const at::Tensor& target = checkpoint.linears[linear];
        ASSIGN_OR_RETURN(const quant::GridMatrix nearest,
                         EncodeTensor(target, *grids.linears[linear]));
        linears[linear] = RoundWithFittedScales(
            target, nearest, statistics[static_cast<size_t>(g)].hessian,
            factor);
        model.SetLinear(i, DequantizeTensor(linears[linear]));
      }
    }
    pass.Advance(layer);
    if (!progress(layer + 1, checkpoint.config.layer_count())) return Stopped();
  }
  // What is in no group has no statistics.
  for (size_t i = 0; i < linears.size(); ++i) {
    if (layout.InGroup(static_cast<int64_t>(i))) continue;
    ASSIGN_OR_RETURN(linears[i],
                     EncodeTensor(checkpoint.linears[i], *grids.linears[i]));
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
  values.per_layer_embedding = source.per_layer_embedding;
  values.norms = quantized.norms;
  return values;
}

absl::Status SaveQuantized(const FloatCheckpoint& source,
                           const QuantizedModel& quantized,
                           const std::string& path) {
  std::vector<NamedMatrix> matrices;
  for (size_t i = 0; i < source.specs.size(); ++i) {
    matrices.push_back({source.specs[i].gguf_name, &quantized.linears[i]});
  }
  matrices.push_back({model::kGgufEmbedding, &quantized.embedding});
  const std::vector<model::NormSpec> specs = model::GemmaNorms(source.config);
  std::vector<NamedNorm> norms;
  for (size_t i = 0; i < specs.size(); ++i) {
    if (quantized.norms[i] == source.norms[i]) continue;
    norms.push_back({specs[i].gguf_name, &quantized.norms[i]});
  }
  return WriteFolded(matrices, norms, path);
}

}  // namespace onegrid::finetuner
