#include "services/finetuner/calibration.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstddef>
#include <utility>

namespace onegrid::finetuner {
namespace {

void Add(const at::Tensor& x, InputStatistics* statistics) {
  const at::Tensor input = x.to(at::kFloat);
  if (!statistics->hessian.defined()) {
    statistics->hessian = at::zeros({x.size(1), x.size(1)}, at::kFloat);
    statistics->magnitude = at::zeros({x.size(1)}, at::kFloat);
  }
  statistics->hessian.addmm_(input.t(), input);
  statistics->magnitude.add_(input.abs().sum(0));
}

}  // namespace

int64_t LongestSegment(absl::Span<const PackedSequence> sequences) {
  int64_t longest = 1;
  for (const PackedSequence& sequence : sequences) {
    for (size_t s = 1; s < sequence.segment_starts.size(); ++s) {
      longest = std::max(
          longest, sequence.segment_starts[s] - sequence.segment_starts[s - 1]);
    }
  }
  return longest;
}

CalibrationPass::CalibrationPass(const GemmaModel& model,
                                 absl::Span<const PackedSequence> sequences)
    : model_(model) {
  const c10::NoGradGuard no_grad;
  for (const PackedSequence& sequence : sequences) {
    layouts_.push_back(MakeAttentionLayout(sequence));
    streams_.push_back(model.Start(sequence));
  }
}

LayerStatistics CalibrationPass::Observe(int64_t layer) {
  return Run(layer, /*observe=*/true, /*advance=*/false);
}

void CalibrationPass::Advance(int64_t layer) {
  Run(layer, /*observe=*/false, /*advance=*/true);
}

LayerStatistics CalibrationPass::ObserveAndAdvance(int64_t layer) {
  return Run(layer, /*observe=*/true, /*advance=*/true);
}

LayerStatistics CalibrationPass::Run(int64_t layer, bool observe,
                                     bool advance) {
  const c10::NoGradGuard no_grad;
  LayerStatistics statistics;
  ForwardOptions options;
  if (observe) {
    options.observe = [&](int64_t, LinearGroup group, const at::Tensor& x) {
      Add(x, &statistics[static_cast<size_t>(group)]);
    };
  }
  for (size_t i = 0; i < streams_.size(); ++i) {
    LayerStream stream = streams_[i];
    model_.ForwardLayer(layer, layouts_[i], options, &stream);
    if (advance) streams_[i] = std::move(stream);
  }
  return statistics;
}

}  // namespace onegrid::finetuner
