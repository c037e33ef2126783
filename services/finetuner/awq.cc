#include "services/finetuner/awq.h"

#include <c10/core/GradMode.h>

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "services/common/error_info.h"
#include "services/finetuner/calibration.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/grid_tensor.h"

namespace onegrid::finetuner {
namespace {

constexpr int kExponents = 20;

// Squared output error of rounding the members of a group with their columns
// scaled by t.
absl::StatusOr<double> RoundingError(absl::Span<const at::Tensor> members,
                                     absl::Span<const quant::Grid* const> grids,
                                     const at::Tensor& hessian,
                                     const at::Tensor& t) {
  double error = 0;
  for (size_t i = 0; i < members.size(); ++i) {
    ASSIGN_OR_RETURN(const quant::GridMatrix rounded,
                     EncodeTensor(members[i] * t, *grids[i]));
    const at::Tensor miss = DequantizeTensor(rounded) / t - members[i];
    error += (at::mm(miss, hessian) * miss).sum().item<double>();
  }
  return error;
}

// The best scales of a group, [in]; the magnitudes need not be normalized.
absl::StatusOr<at::Tensor> SearchScales(
    absl::Span<const at::Tensor> members,
    absl::Span<const quant::Grid* const> grids, const at::Tensor& hessian,
    const at::Tensor& magnitude) {
  // Channels that hardly fire must not get vanishing weights.
  const at::Tensor mean =
      (magnitude / magnitude.mean().clamp_min(1e-20)).clamp_min(1e-4);
  at::Tensor best = at::ones_like(mean);
  ASSIGN_OR_RETURN(double least, RoundingError(members, grids, hessian, best));
  for (int i = 1; i < kExponents; ++i) {
    at::Tensor t = mean.pow(static_cast<double>(i) / kExponents);
    t = t / (t.max() * t.min()).sqrt();
    ASSIGN_OR_RETURN(const double error,
                     RoundingError(members, grids, hessian, t));
    if (error >= least) continue;
    least = error;
    best = t;
  }
  return best;
}

// Mean over the query heads that read one key/value head, for each of them:
// [heads * head_dim] -> the same.
at::Tensor ShareOverHeads(const at::Tensor& x,
                          const model::GemmaConfig& config) {
  const model::GemmaLayer& layer = config.layers[0];  // they are alike
  const int64_t sharing = config.heads / layer.kv_heads;
  return x.view({layer.kv_heads, sharing, layer.head_dim})
      .mean(1, /*keepdim=*/true)
      .expand({layer.kv_heads, sharing, layer.head_dim})
      .reshape({-1});
}

// Of scales that are the same for the sharing heads, one per value row:
// [heads * head_dim] -> [kv_heads * head_dim].
at::Tensor OfValueRows(const at::Tensor& t, const model::GemmaConfig& config) {
  const model::GemmaLayer& layer = config.layers[0];  // they are alike
  return t.view({layer.kv_heads, config.heads / layer.kv_heads, layer.head_dim})
      .select(1, 0)
      .reshape({-1});
}

void DivideNorm(const at::Tensor& t, std::vector<float>* norm) {
  at::from_blob(norm->data(), {static_cast<int64_t>(norm->size())}, at::kFloat)
      .div_(t);
}

// Whether something before the group can take its scales: a norm's weight, or
// the rows of a linear. Gemma 4 norms its values, so rows of v can't; nothing
// weighs what the layer's own input is computed from.
bool HasScales(LinearGroup group, const model::GemmaConfig& config) {
  switch (group) {
    case LinearGroup::kInputGate:
    case LinearGroup::kInputOut:
      return false;
    case LinearGroup::kOutput:
      return config.family == model::GemmaFamily::kGemma3;
    default:
      return true;
  }
}

// Scales one group of one layer of `checkpoint`.
absl::Status ScaleGroup(int64_t layer, LinearGroup group,
                        const ModelGrids& grids,
                        const InputStatistics& statistics,
                        FloatCheckpoint* checkpoint) {
  const model::GemmaConfig& config = checkpoint->config;
  const LinearLayout layout(checkpoint->specs);
  const GroupSpan span = layout.Of(layer, group);
  const auto begin = static_cast<size_t>(span.begin);
  const auto count = static_cast<size_t>(span.end - span.begin);
  const absl::Span<at::Tensor> linears = absl::MakeSpan(checkpoint->linears);
  const at::Tensor magnitude =
      group == LinearGroup::kOutput
          ? ShareOverHeads(statistics.magnitude, config)
          : statistics.magnitude;
  ASSIGN_OR_RETURN(
      const at::Tensor t,
      SearchScales(linears.subspan(begin, count),
                   absl::MakeConstSpan(grids.linears).subspan(begin, count),
                   statistics.hessian, magnitude));
  for (at::Tensor& member : linears.subspan(begin, count)) member = member * t;
  const NormLayout norms(config);
  const auto divide_norm = [&](LayerNorm norm) {
    DivideNorm(t,
               &checkpoint->norms[static_cast<size_t>(norms.Of(layer, norm))]);
  };
  // The last of q, k, v; the last of gate, up.
  const auto last = [&](LinearGroup of) -> at::Tensor& {
    return linears[static_cast<size_t>(layout.Of(layer, of).end - 1)];
  };
  switch (group) {
    case LinearGroup::kQkv:
      divide_norm(LayerNorm::kAttentionInput);
      break;
    case LinearGroup::kOutput:
      last(LinearGroup::kQkv) =
          last(LinearGroup::kQkv) / OfValueRows(t, config).unsqueeze(1);
      break;
    case LinearGroup::kGateUp:
      divide_norm(LayerNorm::kMlpInput);
      break;
    case LinearGroup::kDown:
      last(LinearGroup::kGateUp) = last(LinearGroup::kGateUp) / t.unsqueeze(1);
      break;
    case LinearGroup::kInputGate:
    case LinearGroup::kInputOut:
      break;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<FloatCheckpoint> ScaleChannels(
    const FloatCheckpoint& checkpoint, const ModelGrids& grids,
    absl::Span<const PackedSequence> calibration,
    const LayerProgress& progress) {
  const c10::NoGradGuard no_grad;
  const GemmaModel model(
      MakeSharedWeights(checkpoint, LongestSegment(calibration)),
      checkpoint.linears, at::kFloat);
  CalibrationPass pass(model, calibration);
  FloatCheckpoint scaled = checkpoint;
  for (int64_t layer = 0; layer < checkpoint.config.layer_count(); ++layer) {
    const LayerStatistics statistics = pass.ObserveAndAdvance(layer);
    for (int g = 0; g < kGroupsPerLayer; ++g) {
      if (!HasScales(static_cast<LinearGroup>(g), checkpoint.config)) continue;
      RETURN_IF_ERROR(ScaleGroup(layer, static_cast<LinearGroup>(g), grids,
                                 statistics[static_cast<size_t>(g)], &scaled));
    }
    if (!progress(layer + 1, checkpoint.config.layer_count())) {
      return absl::CancelledError("quantization was cancelled");
    }
  }
  return scaled;
}

}  // namespace onegrid::finetuner
