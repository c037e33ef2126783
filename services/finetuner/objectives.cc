#include "services/finetuner/objectives.h"

#include <torch/csrc/autograd/autograd.h>

#include "absl/strings/str_cat.h"

namespace onegrid::finetuner {
namespace {

LossSums Backward(const GemmaModel& model, const ForwardOptions& options,
                  const Objective& objective, const PackedSequence& sequence,
                  int64_t label_count) {
  const Labels labels = LabelsOf(sequence);
  if (labels.rows.empty()) return {};
  const AttentionLayout layout = MakeAttentionLayout(sequence);
  HeadTeacher teacher;
  if (objective.teacher != nullptr) {
    teacher = objective.teacher->Judge(sequence, layout, labels);
  }
  const at::Tensor x = model.Forward(sequence, layout, options);
  const at::Tensor hidden =
      model.FinalHidden(x, labels.rows, options.as_served);
  LossSums sums;
  at::Tensor loss;
  if (objective.vocabulary != nullptr) {
    const LossVocabulary& vocabulary = *objective.vocabulary;
    teacher.head = &vocabulary.teacher();
    // As many logits at once as of the whole vocabulary.
    const int64_t chunk =
        kHeadChunk * model.head().weight.size(0) / vocabulary.size();
    loss =
        HeadLoss(hidden, vocabulary.student(), vocabulary.Local(labels.targets),
                 objective.weights, &teacher, &sums, chunk);
  } else {
    loss = HeadLoss(hidden, model.head(), labels.targets, objective.weights,
                    objective.teacher == nullptr ? nullptr : &teacher, &sums);
  }
  torch::autograd::backward(
      {loss},
      {at::scalar_tensor(1.0 / static_cast<double>(label_count), at::kDouble)});
  return sums;
}

std::string Describe(const Objective& objective) {
  return absl::StrCat(
      "ce=", objective.weights.cross_entropy, " kl=", objective.weights.kl,
      " as_served=", objective.as_served, " vocabulary=",
      objective.vocabulary == nullptr ? 0 : objective.vocabulary->size());
}

}  // namespace

std::vector<ParameterSpan> AdapterTunable::spans() const {
  return adapter_->spans();
}

LossSums AdapterTunable::AddGradients(const PackedSequence& sequence,
                                      int64_t label_count,
                                      at::Generator* random) {
  ForwardOptions options;
  options.adapter = adapter_;
  options.dropout_random = random;
  return Backward(model_, options, objective_, sequence, label_count);
}

std::string AdapterTunable::Fingerprint() const {
  return absl::StrCat("adapter ", DescribeLora(adapter_->options()),
                      " parameters=", adapter_->parameters().numel(), " ",
                      Describe(objective_));
}

LossSums GridTunable::AddGradients(const PackedSequence& sequence,
                                   int64_t label_count, at::Generator*) {
  ForwardOptions options;
  options.weight_gradients = parameters_;
  options.as_served = objective_.as_served;
  return Backward(*model_, options, objective_, sequence, label_count);
}

std::string GridTunable::Fingerprint() const {
  return absl::StrCat("grid ", parameters_->Describe(), " ",
                      Describe(objective_),
                      origin_.empty() ? "" : absl::StrCat(" from ", origin_));
}

}  // namespace onegrid::finetuner
