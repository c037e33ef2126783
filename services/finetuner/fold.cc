#include "services/finetuner/fold.h"

#include <c10/core/GradMode.h>

#include <cstddef>

#include "services/common/error_info.h"
#include "services/finetuner/gptq.h"
#include "services/finetuner/tensor_file.h"

namespace onegrid::finetuner {
namespace {

// One calibration sequence on its way through the layers, twice: through the
// adapted model, and through the layers that are folded already.
struct Stream {
  AttentionLayout layout;
  at::Tensor adapted;  // [T, hidden] float32, the input of the next layer.
  at::Tensor folded;
};

// Sums over all tokens for one linear group, [in, in] float32: x is the input
// behind folded layers, a the input behind adapted ones.
struct InputSums {
  at::Tensor hessian;  // x^T x
  at::Tensor drift;    // (a - x)^T x
};

// The inputs of a layer's groups, [T, in] float32 each.
using GroupInputs = std::vector<at::Tensor>;

// Runs one layer of the adapted model on `x`, keeps the inputs of the groups
// that have an adapter, and returns the layer's output.
at::Tensor RunAdapted(const Gemma3Model& model, const LoraAdapter& adapter,
                      int64_t layer, const at::Tensor& x,
                      const AttentionLayout& layout, GroupInputs* inputs) {
  inputs->assign(kGroupsPerLayer, at::Tensor());
  ForwardOptions options;
  options.adapter = &adapter;
  options.observe = [&](int64_t observed, LinearGroup group,
                        const at::Tensor& input) {
    const int g = static_cast<int>(group);
    if (adapter.group(observed, g) == nullptr) return;
    (*inputs)[static_cast<size_t>(g)] = input.to(at::kFloat);
  };
  return model.ForwardLayer(layer, x, layout, options);
}

// Sums of one layer over all streams; moves their adapted half on.
std::vector<InputSums> Observe(const Gemma3Model& model,
                               const LoraAdapter& adapter, int64_t layer,
                               std::vector<Stream>* streams) {
  std::vector<InputSums> sums(kGroupsPerLayer);
  GroupInputs adapted, folded;
  for (Stream& stream : *streams) {
    const at::Tensor next = RunAdapted(model, adapter, layer, stream.adapted,
                                       stream.layout, &adapted);
    RunAdapted(model, adapter, layer, stream.folded, stream.layout, &folded);
    stream.adapted = next;
    for (size_t g = 0; g < sums.size(); ++g) {
      const at::Tensor& x = folded[g];
      if (!x.defined()) continue;
      if (!sums[g].hessian.defined()) {
        sums[g].hessian = at::zeros({x.size(1), x.size(1)}, at::kFloat);
        sums[g].drift = at::zeros_like(sums[g].hessian);
      }
      sums[g].hessian.addmm_(x.t(), x);
      if (layer > 0) sums[g].drift.addmm_((adapted[g] - x).t(), x);
    }
  }
  return sums;
}

int64_t CountChanged(const quant::Int4Matrix& a, const quant::Int4Matrix& b) {
  int64_t changed = 0;
  for (size_t i = 0; i < a.codes.size(); ++i) {
    changed += a.codes[i] != b.codes[i];
  }
  return changed;
}

}  // namespace

absl::StatusOr<FoldResult> Fold(const GridCheckpoint& checkpoint,
                                const Gemma3Model& model,
                                const LoraAdapter& adapter,
                                absl::Span<const PackedSequence> calibration,
                                const FoldProgress& progress) {
  const c10::NoGradGuard no_grad;
  std::vector<Stream> streams;
  for (const PackedSequence& sequence : calibration) {
    const at::Tensor x = model.Embed(sequence);
    streams.push_back({MakeAttentionLayout(sequence), x, x});
  }
  Gemma3Model folded(model);
  FoldResult result;
  result.linears = checkpoint.linears;
  int64_t changed = 0, total = 0;
  for (const quant::Int4Matrix& matrix : checkpoint.linears) {
    total += static_cast<int64_t>(matrix.codes.size());
  }
  for (int64_t layer = 0; layer < checkpoint.config.layers; ++layer) {
    const std::vector<InputSums> sums =
        Observe(model, adapter, layer, &streams);
    for (int g = 0; g < kGroupsPerLayer; ++g) {
      const LoraGroup* group = adapter.group(layer, g);
      if (group == nullptr) continue;
      const InputSums& sum = sums[static_cast<size_t>(g)];
      ASSIGN_OR_RETURN(const HessianFactor factor, FactorHessian(sum.hessian));
      const at::Tensor correction =
          at::mm(sum.drift.to(at::kDouble), factor.inverse).to(at::kFloat);
      for (const LoraLinearParameters& member : group->members) {
        const auto linear = static_cast<size_t>(member.linear);
        const quant::Int4Matrix& grid = checkpoint.linears[linear];
        at::Tensor target =
            DequantizeTensor(grid) + adapter.Delta(member.linear);
        target += at::mm(target, correction);
        result.linears[linear] = RoundWithFeedback(target, grid, factor);
        changed += CountChanged(grid, result.linears[linear]);
        folded.SetLinear(member.linear,
                         DequantizeTensor(result.linears[linear]));
      }
    }
    for (Stream& stream : streams) {
      stream.folded =
          folded.ForwardLayer(layer, stream.folded, stream.layout, {});
    }
    if (!progress(layer + 1)) {
      return absl::CancelledError("tuning was cancelled");
    }
  }
  result.codes_changed =
      static_cast<double>(changed) / static_cast<double>(total);
  return result;
}

absl::Status SaveFolded(const GridCheckpoint& checkpoint,
                        const FoldResult& result, const std::string& path) {
  TensorFileWriter writer;
  // Wide types first, so that both kinds are aligned.
  for (size_t i = 0; i < checkpoint.specs.size(); ++i) {
    const quant::Int4Matrix& matrix = result.linears[i];
    RETURN_IF_ERROR(writer.Add(
        checkpoint.specs[i].gguf_name + ".scales",
        at::from_blob(const_cast<float*>(matrix.scales.data()),
                      {matrix.rows, matrix.cols / quant::kGroup}, at::kFloat)));
  }
  for (size_t i = 0; i < checkpoint.specs.size(); ++i) {
    const quant::Int4Matrix& matrix = result.linears[i];
    RETURN_IF_ERROR(
        writer.Add(checkpoint.specs[i].gguf_name + ".codes",
                   at::from_blob(const_cast<int8_t*>(matrix.codes.data()),
                                 {matrix.rows, matrix.cols}, at::kChar)));
  }
  writer.SetMetadata({{"format", "onegrid.folded.v1"}});
  return writer.WriteTo(path);
}

}  // namespace onegrid::finetuner
