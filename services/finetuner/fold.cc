#include "services/finetuner/fold.h"

#include <c10/core/GradMode.h>

#include <cstddef>
#include <string>

#include "services/common/error_info.h"
#include "services/finetuner/folded_file.h"
#include "services/finetuner/gptq.h"

namespace onegrid::finetuner {
namespace {

// One calibration sequence on its way through the layers.
struct Stream {
  AttentionLayout layout;
  LayerStream at;  // Before the next layer.
};

// Advances every stream by one layer of the adapted model and returns the
// X^T X of its linear groups, [in, in] float32.
std::vector<at::Tensor> AdvanceAndObserve(const GemmaModel& model,
                                          const LoraAdapter& adapter,
                                          int64_t layer,
                                          std::vector<Stream>* streams) {
  std::vector<at::Tensor> hessians(kGroupsPerLayer);
  ForwardOptions options;
  options.adapter = &adapter;
  options.observe = [&](int64_t observed, LinearGroup group,
                        const at::Tensor& x) {
    const int g = static_cast<int>(group);
    if (adapter.group(observed, g) == nullptr) return;
    const at::Tensor input = x.to(at::kFloat);
    at::Tensor& hessian = hessians[static_cast<size_t>(g)];
    if (!hessian.defined()) {
      hessian = at::zeros({x.size(1), x.size(1)}, at::kFloat);
    }
    hessian.addmm_(input.t(), input);
  };
  for (Stream& stream : *streams) {
    model.ForwardLayer(layer, stream.layout, options, &stream.at);
  }
  return hessians;
}

int64_t CountChanged(const quant::GridMatrix& a, const quant::GridMatrix& b) {
  int64_t changed = 0;
  for (size_t i = 0; i < a.codes.size(); ++i) {
    changed += a.codes[i] != b.codes[i];
  }
  return changed;
}

}  // namespace

double ShareOfCodesChanged(absl::Span<const quant::GridMatrix> before,
                           absl::Span<const quant::GridMatrix> after) {
  int64_t changed = 0, total = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    const auto codes = static_cast<int64_t>(before[i].codes.size());
    total += codes;
    changed += before[i].grid == after[i].grid
                   ? CountChanged(before[i], after[i])
                   : codes;
  }
  return static_cast<double>(changed) / static_cast<double>(total);
}

absl::StatusOr<FoldResult> Fold(const GridCheckpoint& checkpoint,
                                const GemmaModel& model,
                                const LoraAdapter& adapter,
                                absl::Span<const PackedSequence> calibration,
                                const FoldProgress& progress) {
  const c10::NoGradGuard no_grad;
  std::vector<Stream> streams;
  for (const PackedSequence& sequence : calibration) {
    streams.push_back({MakeAttentionLayout(sequence), model.Start(sequence)});
  }
  FoldResult result;
  result.linears = checkpoint.linears;
  for (int64_t layer = 0; layer < checkpoint.config.layer_count(); ++layer) {
    const std::vector<at::Tensor> hessians =
        AdvanceAndObserve(model, adapter, layer, &streams);
    for (int g = 0; g < kGroupsPerLayer; ++g) {
      const LoraGroup* group = adapter.group(layer, g);
      if (group == nullptr) continue;
      ASSIGN_OR_RETURN(const HessianFactor factor,
                       FactorHessian(hessians[static_cast<size_t>(g)]));
      for (const LoraLinearParameters& member : group->members) {
        const auto linear = static_cast<size_t>(member.linear);
        const quant::GridMatrix& grid = checkpoint.linears[linear];
        result.linears[linear] = RoundWithFeedback(
            DequantizeTensor(grid) + adapter.Delta(member.linear), grid,
            factor);
      }
    }
    if (!progress(layer + 1)) {
      return absl::CancelledError("tuning was cancelled");
    }
  }
  result.codes_changed =
      ShareOfCodesChanged(checkpoint.linears, result.linears);
  return result;
}

absl::Status SaveFolded(const GridCheckpoint& checkpoint,
                        absl::Span<const quant::GridMatrix> linears,
                        bool with_embedding, const std::string& path) {
  std::vector<NamedMatrix> matrices;
  for (size_t i = 0; i < checkpoint.specs.size(); ++i) {
    matrices.push_back({checkpoint.specs[i].gguf_name, &linears[i]});
  }
  if (with_embedding) {
    matrices.push_back({model::kGgufEmbedding, &checkpoint.embedding});
  }
  return WriteFolded(matrices, {}, path);
}

}  // namespace onegrid::finetuner
