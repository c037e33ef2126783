#include "services/finetuner/sensitivity.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <tuple>
#include <utility>

#include "services/common/error_info.h"
#include "services/finetuner/attention.h"
#include "services/finetuner/calibration.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/gptq.h"
#include "services/finetuner/grid_tensor.h"
#include "services/finetuner/head_kl.h"
#include "services/finetuner/head_loss.h"
#include "services/finetuner/scale_fit.h"
#include "services/model/quant_plan.h"

namespace onegrid::finetuner {
namespace {

constexpr int64_t kTeacherTop = 32;

// The text with the teacher's predictions for it.
struct Examined {
  std::vector<Labels> labels;  // By sequence.
  at::Tensor vocabulary;       // Tokens compared, ascending, int64.
  HeadInput teacher;
};

// Final hidden states of all labelled positions. `streams` are the inputs of
// layer `layer`.
at::Tensor RunFrom(const GemmaModel& model, int64_t layer,
                   std::vector<LayerStream> streams,
                   const std::vector<AttentionLayout>& layouts,
                   const std::vector<Labels>& labels) {
  std::vector<at::Tensor> hidden;
  for (size_t i = 0; i < streams.size(); ++i) {
    if (labels[i].rows.empty()) continue;
    LayerStream stream = std::move(streams[i]);
    for (int64_t l = layer; l < model.config().layer_count(); ++l) {
      model.ForwardLayer(l, layouts[i], {}, &stream);
    }
    hidden.push_back(model.FinalHidden(stream.x, labels[i].rows));
  }
  return at::cat(hidden);
}

absl::StatusOr<Examined> Examine(const GemmaModel& model,
                                 const CalibrationPass& start,
                                 absl::Span<const PackedSequence> text) {
  Examined examined;
  size_t count = 0;
  for (const PackedSequence& sequence : text) {
    examined.labels.push_back(LabelsOf(sequence));
    count += examined.labels.back().rows.size();
  }
  if (count == 0) {
    return common::MakeError(absl::StatusCode::kInvalidArgument, "EMPTY_TEXT",
                             "there is no text to measure on");
  }
  examined.teacher.hidden =
      RunFrom(model, 0, start.streams(), start.layouts(), examined.labels);
  const TopLogprobs top =
      ScoreTop(examined.teacher.hidden, model.head(),
               std::min(kTeacherTop, model.config().vocab_size));
  examined.vocabulary = std::get<0>(at::_unique(top.ids)).to(at::kLong);
  examined.teacher.head =
      model.head().weight.index_select(0, examined.vocabulary);
  examined.teacher.softcap = model.head().softcap;
  return examined;
}

// What RoundWithFittedScales wants to know of a linear group.
struct Inputs {
  at::Tensor hessian;
  HessianFactor factor;
};

// Puts one matrix after another on its grids.
class Measurement {
 public:
  Measurement(const FloatCheckpoint& checkpoint,
              const SensitivityOptions& options,
              absl::Span<const PackedSequence> calibration,
              absl::Span<const PackedSequence> text)
      : checkpoint_(checkpoint),
        options_(options),
        model_(
            MakeSharedWeights(checkpoint, std::max(LongestSegment(calibration),
                                                   LongestSegment(text))),
            checkpoint.linears, at::kFloat),
        calibration_(model_, calibration),
        text_(model_, text) {}

  absl::StatusOr<std::vector<TensorCosts>> All(
      absl::Span<const PackedSequence> text,
      const SensitivityProgress& progress);

 private:
  absl::StatusOr<TensorCosts> Linear(int64_t layer, size_t linear,
                                     const std::optional<Inputs>& inputs);
  absl::StatusOr<TensorCosts> Embedding(absl::Span<const PackedSequence> text);
  absl::StatusOr<std::array<std::optional<Inputs>, kGroupsPerLayer>> InputsOf(
      int64_t layer);
  double Kl(at::Tensor hidden, const at::Tensor& head) const;

  const FloatCheckpoint& checkpoint_;
  const SensitivityOptions& options_;
  GemmaModel model_;
  CalibrationPass calibration_;
  CalibrationPass text_;  // Inputs of the layer that is measured.
  Examined examined_;
};

double Measurement::Kl(at::Tensor hidden, const at::Tensor& head) const {
  return MeanKl(examined_.teacher,
                {std::move(hidden), head.index_select(0, examined_.vocabulary),
                 model_.head().softcap});
}

absl::StatusOr<TensorCosts> Measurement::Linear(
    int64_t layer, size_t linear, const std::optional<Inputs>& inputs) {
  const at::Tensor& target = checkpoint_.linears[linear];
  TensorCosts costs{checkpoint_.specs[linear].gguf_name, {}};
  for (const quant::Grid* grid : options_.linear_grids) {
    if (target.size(1) % grid->group != 0) continue;
    ASSIGN_OR_RETURN(quant::GridMatrix matrix, EncodeTensor(target, *grid));
    if (inputs.has_value()) {
      matrix = RoundWithFittedScales(target, matrix, inputs->hessian,
                                     inputs->factor);
    }
    model_.SetLinear(static_cast<int64_t>(linear), DequantizeTensor(matrix));
    const double kl = Kl(RunFrom(model_, layer, text_.streams(),
                                 text_.layouts(), examined_.labels),
                         model_.head().weight);
    costs.grids.push_back(
        {grid, model::GridBytes(*grid, matrix.rows, matrix.cols), kl});
  }
  model_.SetLinear(static_cast<int64_t>(linear), target);
  return costs;
}

absl::StatusOr<TensorCosts> Measurement::Embedding(
    absl::Span<const PackedSequence> text) {
  TensorCosts costs{model::kGgufEmbedding, {}};
  for (const quant::Grid* grid : options_.embedding_grids) {
    if (checkpoint_.config.hidden % grid->group != 0) continue;
    ASSIGN_OR_RETURN(const quant::GridMatrix matrix,
                     EncodeTensor(checkpoint_.embedding, *grid));
    FloatCheckpoint changed = checkpoint_;
    changed.embedding = DequantizeTensor(matrix);
    const GemmaModel model(MakeSharedWeights(changed, LongestSegment(text)),
                           changed.linears, at::kFloat);
    const CalibrationPass start(model, text);
    const double kl = Kl(
        RunFrom(model, 0, start.streams(), start.layouts(), examined_.labels),
        model.head().weight);
    costs.grids.push_back(
        {grid, model::GridBytes(*grid, matrix.rows, matrix.cols), kl});
  }
  return costs;
}

absl::StatusOr<std::array<std::optional<Inputs>, kGroupsPerLayer>>
Measurement::InputsOf(int64_t layer) {
  std::array<std::optional<Inputs>, kGroupsPerLayer> inputs;
  if (!options_.feedback) return inputs;
  const LayerStatistics statistics = calibration_.ObserveAndAdvance(layer);
  for (size_t g = 0; g < inputs.size(); ++g) {
    if (!statistics[g].hessian.defined()) continue;
    ASSIGN_OR_RETURN(HessianFactor factor,
                     FactorHessian(statistics[g].hessian));
    inputs[g] = Inputs{statistics[g].hessian, std::move(factor)};
  }
  return inputs;
}

absl::StatusOr<std::vector<TensorCosts>> Measurement::All(
    absl::Span<const PackedSequence> text,
    const SensitivityProgress& progress) {
  ASSIGN_OR_RETURN(examined_, Examine(model_, text_, text));
  const auto total = static_cast<int64_t>(checkpoint_.linears.size()) + 1;
  const LinearLayout layout(checkpoint_.specs);
  std::vector<TensorCosts> tensors;
  for (int64_t layer = 0; layer < checkpoint_.config.layer_count(); ++layer) {
    ASSIGN_OR_RETURN(const auto inputs, InputsOf(layer));
    for (size_t g = 0; g < inputs.size(); ++g) {
      const GroupSpan span = layout.Of(layer, static_cast<LinearGroup>(g));
      for (int64_t i = span.begin; i < span.end; ++i) {
        ASSIGN_OR_RETURN(TensorCosts costs,
                         Linear(layer, static_cast<size_t>(i), inputs[g]));
        tensors.push_back(std::move(costs));
        if (!progress(static_cast<int64_t>(tensors.size()), total)) {
          return absl::CancelledError("the measurement was cancelled");
        }
      }
    }
    text_.Advance(layer);
  }
  ASSIGN_OR_RETURN(TensorCosts costs, Embedding(text));
  tensors.push_back(std::move(costs));
  progress(total, total);
  return tensors;
}

}  // namespace

absl::StatusOr<std::vector<TensorCosts>> MeasureSensitivity(
    const FloatCheckpoint& checkpoint, const SensitivityOptions& options,
    absl::Span<const PackedSequence> calibration,
    absl::Span<const PackedSequence> text,
    const SensitivityProgress& progress) {
  const c10::NoGradGuard no_grad;
  if (options.feedback && calibration.empty()) {
    return common::MakeError(absl::StatusCode::kInvalidArgument, "EMPTY_TEXT",
                             "feedback needs calibration text");
  }
  return Measurement(checkpoint, options, calibration, text)
      .All(text, progress);
}

}  // namespace onegrid::finetuner
