// What is trained in each mode: a float adapter beside the frozen grid, or the
// grid itself.
#ifndef SERVICES_FINETUNER_OBJECTIVES_H_
#define SERVICES_FINETUNER_OBJECTIVES_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/finetuner/gemma_model.h"
#include "services/finetuner/grid_parameters.h"
#include "services/finetuner/head_loss.h"
#include "services/finetuner/lora_adapter.h"
#include "services/finetuner/loss_vocabulary.h"
#include "services/finetuner/teacher.h"
#include "services/finetuner/tunable.h"

namespace onegrid::finetuner {

// The loss of a run. `teacher` is not owned and may be nullptr if weights.kl
// is 0.
struct Objective {
  LossWeights weights;
  Teacher* teacher = nullptr;
  // Losses over these tokens alone, or nullptr: over all. Not owned; needs a
  // teacher that gives hidden states.
  const LossVocabulary* vocabulary = nullptr;
  // See ForwardOptions. Of the grid only.
  bool as_served = false;
};

// The adapter's A and B. All must outlive the tunable.
class AdapterTunable : public Tunable {
 public:
  AdapterTunable(const GemmaModel& model, LoraAdapter* adapter,
                 const Objective& objective)
      : model_(model), adapter_(adapter), objective_(objective) {}

  const at::Tensor& parameters() const override {
    return adapter_->parameters();
  }
  const at::Tensor& gradients() const override { return adapter_->gradients(); }
  std::vector<ParameterSpan> spans() const override;
  void Refresh() override { adapter_->Refresh(model_.compute_type()); }
  LossSums AddGradients(const PackedSequence& sequence, int64_t label_count,
                        at::Generator* random) override;
  std::string Fingerprint() const override;

 private:
  const GemmaModel& model_;
  LoraAdapter* const adapter_;
  const Objective objective_;
};

// Scales, low-rank changes or latent weights of the linears; the model computes
// with what they make. All must outlive the tunable.
class GridTunable : public Tunable {
 public:
  GridTunable(GemmaModel* model, GridParameters* parameters,
              const Objective& objective)
      : GridTunable(model, parameters, objective, "") {}
  // `origin` says where the parameters start, in the fingerprint.
  GridTunable(GemmaModel* model, GridParameters* parameters,
              const Objective& objective, std::string origin)
      : model_(model),
        parameters_(parameters),
        objective_(objective),
        origin_(std::move(origin)) {}

  const at::Tensor& parameters() const override {
    return parameters_->parameters();
  }
  const at::Tensor& gradients() const override {
    return parameters_->gradients();
  }
  std::vector<ParameterSpan> spans() const override {
    return parameters_->spans();
  }
  void Refresh() override { parameters_->WriteTo(model_); }
  LossSums AddGradients(const PackedSequence& sequence, int64_t label_count,
                        at::Generator* random) override;
  std::string Fingerprint() const override;

 private:
  GemmaModel* const model_;
  GridParameters* const parameters_;
  const Objective objective_;
  const std::string origin_;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_OBJECTIVES_H_
