// Gradients of the real model against finite differences: of an adapter, of
// every kind of linear's weights, of the grid's scales, low-rank changes and
// latent weights, of the losses. Prints a table and, last, the worst error over
// its bound.
//
// Each row compares the slope of the loss along a direction d, (loss(x + h d) -
// loss(x - h d)) / 2h, with gradient . d. The loss is a float32 computation of
// relative precision 2^-24 * sqrt(operations), so that a slope can be told to
// about 1 %; a wrong factor, sign or missing term is far beyond that.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/finetuner/example_reader.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/grid_checkpoint.h"
#include "services/finetuner/grid_parameters.h"
#include "services/finetuner/head_loss.h"
#include "services/finetuner/lora_adapter.h"
#include "services/finetuner/objectives.h"
#include "services/finetuner/packing.h"
#include "services/finetuner/teacher.h"
#include "services/model/gguf_reader.h"
#include "services/model/tokenizer.h"

ABSL_FLAG(std::string, base, "", "On-grid GGUF.");
ABSL_FLAG(std::string, examples, "", "Training split, JSONL.");
ABSL_FLAG(int64_t, count, 3, "Examples to take the loss of.");

namespace onegrid::finetuner {
namespace {

constexpr double kBound = 0.02;
constexpr uint64_t kSeed = 5;

class Check {
 public:
  Check(const GridCheckpoint& checkpoint, PackedSequence sequence)
      : checkpoint_(checkpoint),
        sequence_(std::move(sequence)),
        shared_(MakeSharedWeights(checkpoint, sequence_.size())),
        model_(shared_, checkpoint.linears, at::kFloat),
        labels_(LabelsOf(sequence_)),
        layout_(MakeAttentionLayout(sequence_)),
        random_(at::detail::createCPUGenerator(kSeed)) {}

  void Run() {
    Adapter();
    Weights();
    Scales();
    LowRank();
    Latent();
    Losses();
  }

  double worst() const { return worst_; }

 private:
  // `loss` of a parameter vector x moved along d by h.
  void Compare(const std::string& what, const at::Tensor& x,
               const at::Tensor& gradient, const at::Tensor& direction,
               double h, const std::function<double()>& loss) {
    const c10::NoGradGuard no_grad;
    const at::Tensor start = x.clone();
    x.add_(direction, h);
    const double above = loss();
    x.copy_(start).sub_(direction, h);
    const double below = loss();
    x.copy_(start);
    Row(what, (above - below) / (2 * h),
        (gradient.to(at::kDouble) * direction).sum().item<double>());
  }

  void Row(const std::string& what, double slope, double expected) {
    const double error = std::abs(slope - expected) / std::abs(expected);
    worst_ = std::max(worst_, std::isfinite(error) ? error / kBound : 1e9);
    std::printf("%-42s %13.6g %13.6g %9.2e\n", what.c_str(), slope, expected,
                error);
  }

  double ModelLoss() {
    const c10::NoGradGuard no_grad;
    const at::Tensor x = model_.Forward(sequence_, layout_, {});
    return HeadLossSum(model_.FinalHidden(x, labels_.rows), model_.head(),
                       labels_.targets)
        .item<double>();
  }

  void Adapter() {
    auto made = LoraAdapter::Create(checkpoint_.specs, {}, kSeed);
    LoraAdapter& adapter = *made;
    at::Tensor values = adapter.parameters();
    values.add_(at::empty_like(values).normal_(0, 2e-3, random_));
    AdapterTunable tunable(model_, &adapter, {});
    const auto loss = [&] {
      tunable.Refresh();
      ForwardOptions options;
      options.adapter = &adapter;
      const at::Tensor x = model_.Forward(sequence_, layout_, options);
      return HeadLossSum(model_.FinalHidden(x, labels_.rows), model_.head(),
                         labels_.targets)
          .item<double>();
    };
    tunable.Refresh();
    adapter.gradients().zero_();
    tunable.AddGradients(sequence_, 1, nullptr);
    const at::Tensor gradient = adapter.gradients().clone();
    // Parts of the vector are single linears' A and B.
    constexpr int kParts = 5;
    const int64_t n = gradient.numel() / kParts;
    for (int part = 0; part < kParts; ++part) {
      at::Tensor direction = at::zeros_like(gradient);
      direction.narrow(0, part * n, n).copy_(gradient.narrow(0, part * n, n));
      direction.div_(direction.norm());
      Compare(absl::StrCat("adapter, part ", part + 1, " of ", kParts), values,
              gradient, direction, 1e-3, loss);
    }
  }

  // Weight gradients of the model at its present weights.
  std::vector<at::Tensor> WeightGradients() {
    class Sink : public WeightGradientSink {
     public:
      void Add(int64_t first_linear, const at::Tensor& dw) override {
        at::Tensor& at = groups[first_linear];
        at = at.defined() ? at + dw : dw.clone();
      }
      std::map<int64_t, at::Tensor> groups;  // by first linear
    } sink;
    ForwardOptions options;
    options.weight_gradients = &sink;
    const at::Tensor x = model_.Forward(sequence_, layout_, options);
    HeadLossSum(model_.FinalHidden(x, labels_.rows), model_.head(),
                labels_.targets)
        .backward();
    std::vector<at::Tensor> linears;
    for (const auto& [first, dw] : sink.groups) {
      int64_t offset = 0;
      for (int64_t linear = first; offset < dw.size(0); ++linear) {
        const int64_t rows = checkpoint_.specs[static_cast<size_t>(linear)].out;
        linears.push_back(dw.narrow(0, offset, rows));
        offset += rows;
      }
    }
    return linears;
  }

  void Weights() {
    const std::vector<at::Tensor> gradients = WeightGradients();
    // Each kind of linear, in a sliding, a global and the last layer.
    for (const int64_t layer :
         {int64_t{2}, int64_t{5}, model_.config().layer_count() - 1}) {
      for (int64_t linear = 0; linear < static_cast<int64_t>(gradients.size());
           ++linear) {
        if (checkpoint_.specs[static_cast<size_t>(linear)].layer != layer) {
          continue;
        }
        const at::Tensor& gradient = gradients[static_cast<size_t>(linear)];
        Compare(absl::StrCat(
                    "weight of ",
                    checkpoint_.specs[static_cast<size_t>(linear)].gguf_name),
                model_.linear(linear), gradient, gradient / gradient.norm(),
                2e-3, [this] { return ModelLoss(); });
      }
    }
  }

  GridParameters Make(const GridTraining& training) {
    return *std::move(
        GridParameters::Create(checkpoint_.linears, {}, training));
  }

  // Moves by one unit in the last place of each scale, so that the snapped
  // forward is the smooth one.
  void Scales() {
    GridParameters parameters = Make({});
    GridTunable tunable(&model_, &parameters, {});
    tunable.Refresh();
    tunable.AddGradients(sequence_, 1, nullptr);
    const at::Tensor gradient = parameters.gradients().clone();
    at::Tensor direction = gradient.sign();
    float* d = direction.mutable_data_ptr<float>();
    int64_t at = 0;
    for (const quant::GridMatrix& matrix : checkpoint_.linears) {
      for (const float scale : matrix.scales) {
        // The significand has 8 bits; not across a power of two.
        int exponent;
        const float fraction = std::frexp(scale, &exponent);
        d[at++] *= fraction == 0.5f ? 0.0f : std::ldexp(1.0f, -8) / fraction;
      }
    }
    constexpr int kParts = 4;
    const int64_t n = gradient.numel() / kParts;
    for (int part = 0; part < kParts; ++part) {
      at::Tensor along = at::zeros_like(direction);
      along.narrow(0, part * n, n).copy_(direction.narrow(0, part * n, n));
      // Few of the groups, so that the loss stays near its tangent.
      along.mul_(at::empty_like(along).bernoulli_(0.03, random_));
      Compare(absl::StrCat("scales, part ", part + 1, " of ", kParts),
              parameters.parameters(), gradient, along, 1.0, [&] {
                tunable.Refresh();
                return ModelLoss();
              });
    }
    tunable.Refresh();
  }

  // The straight-through gradient is that of the model whose rounding errors
  // are frozen: weights moved by the low-rank change itself.
  void LowRank() {
    GridTraining training;
    training.rank = 8;
    training.alpha = 16;
    GridParameters parameters = Make(training);
    at::Tensor values = parameters.parameters();
    values.add_(at::empty_like(values).normal_(0, 1e-3, random_));
    // Scales stay: their moves come first.
    int64_t scales = 0;
    for (const quant::GridMatrix& m : checkpoint_.linears) {
      scales += static_cast<int64_t>(m.scales.size());
    }
    values.narrow(0, 0, scales).zero_();
    GridTunable tunable(&model_, &parameters, {});
    tunable.Refresh();
    parameters.gradients().zero_();
    tunable.AddGradients(sequence_, 1, nullptr);
    const at::Tensor gradient = parameters.gradients().clone();
    const std::vector<at::Tensor> dw = WeightGradients();
    // A and B of one linear at a time, against dW . change of scale * B A.
    int64_t begin = scales;
    for (size_t i = 0; i < checkpoint_.linears.size(); ++i) {
      const quant::GridMatrix& m = checkpoint_.linears[i];
      const int64_t a = training.rank * m.cols, b = m.rows * training.rank;
      if (i % 29 == 0) {
        const at::Tensor values_a =
            values.narrow(0, begin, a).view({training.rank, m.cols});
        const at::Tensor values_b =
            values.narrow(0, begin + a, b).view({m.rows, training.rank});
        const at::Tensor da = gradient.narrow(0, begin, a).view_as(values_a);
        const at::Tensor db =
            gradient.narrow(0, begin + a, b).view_as(values_b);
        // The slope of dW . W along the gradient itself.
        const double scale = training.alpha / training.rank;
        const at::Tensor inside = Inside(m, values_a, values_b, scale);
        const at::Tensor change =
            scale * (at::mm(values_b, da) + at::mm(db, values_a));
        const double slope =
            (dw[i] * change * inside).sum().to(at::kDouble).item<double>();
        Row(absl::StrCat("low-rank change of ", checkpoint_.specs[i].gguf_name),
            slope,
            (da.to(at::kDouble).square().sum() +
             db.to(at::kDouble).square().sum())
                .item<double>());
      }
      begin += a + b;
    }
    Make({}).WriteTo(&model_);
  }

  // 1 where the latent code lies in the grid's range, else 0.
  at::Tensor Inside(const quant::GridMatrix& m, const at::Tensor& a,
                    const at::Tensor& b, double scale) const {
    const at::Tensor scales = at::tensor(m.scales)
                                  .view({m.rows, -1})
                                  .repeat_interleave(m.grid->group, 1);
    const at::Tensor phi =
        (DequantizeTensor(m) + scale * at::mm(b, a)) / scales;
    return ((phi >= m.grid->min_code) * (phi <= m.grid->max_code))
        .to(at::kFloat);
  }

  void Latent() {
    GridTraining training;
    training.scales = false;
    training.latent = true;
    GridParameters parameters = Make(training);
    GridTunable tunable(&model_, &parameters, {});
    tunable.Refresh();
    tunable.AddGradients(sequence_, 1, nullptr);
    const at::Tensor gradient = parameters.gradients();
    // At the codes themselves nothing lies outside, so that moving a latent
    // value with its rounding error frozen moves the weight by first scale.
    int64_t begin = 0;
    for (size_t i = 0; i < checkpoint_.linears.size(); ++i) {
      const quant::GridMatrix& m = checkpoint_.linears[i];
      const int64_t n = m.rows * m.cols;
      if (i % 31 == 0) {
        const at::Tensor d =
            gradient.narrow(0, begin, n).view({m.rows, m.cols});
        const at::Tensor scales = at::tensor(m.scales)
                                      .view({m.rows, -1})
                                      .repeat_interleave(m.grid->group, 1);
        const at::Tensor direction = d / d.norm();
        const at::Tensor weight = model_.linear(static_cast<int64_t>(i));
        Compare(
            absl::StrCat("latent weights of ", checkpoint_.specs[i].gguf_name),
            weight, d / scales, direction * scales, 0.1,
            [this] { return ModelLoss(); });
      }
      begin += n;
    }
  }

  void Losses() {
    const c10::NoGradGuard no_grad;
    at::Tensor x = model_.Forward(sequence_, layout_, {});
    at::Tensor hidden = model_.FinalHidden(x, labels_.rows);
    HeadTeacher full;
    full.hidden = hidden + at::empty_like(hidden).normal_(0, 0.3, random_);
    full.head = &model_.head();
    HeadTeacher top;
    top.top = ScoreTop(full.hidden, model_.head(), 64);
    const auto check = [&](const std::string& what, const LossWeights& weights,
                           const HeadTeacher* teacher) {
      at::Tensor leaf = hidden.clone();
      const auto loss = [&] {
        LossSums sums;
        return HeadLoss(leaf, model_.head(), labels_.targets, weights, teacher,
                        &sums)
            .item<double>();
      };
      at::Tensor gradient;
      {
        const at::AutoGradMode with_grad(true);
        at::Tensor variable = hidden.clone().requires_grad_(true);
        LossSums sums;
        HeadLoss(variable, model_.head(), labels_.targets, weights, teacher,
                 &sums)
            .backward();
        gradient = variable.grad();
      }
      Compare(what, leaf, gradient, gradient / gradient.norm(), 1e-2, loss);
    };
    check("loss: cross-entropy", {1, 0}, nullptr);
    check("loss: divergence", {0, 1}, &full);
    check("loss: divergence, 64 most likely tokens", {0, 1}, &top);
    check("loss: both", {0.5, 2}, &full);
  }

  const GridCheckpoint& checkpoint_;
  const PackedSequence sequence_;
  const std::shared_ptr<const SharedWeights> shared_;
  GemmaModel model_;
  const Labels labels_;
  const AttentionLayout layout_;
  at::Generator random_;
  double worst_ = 0;
};

absl::StatusOr<double> Run() {
  ASSIGN_OR_RETURN(const auto file,
                   model::GgufFile::Open(absl::GetFlag(FLAGS_base)));
  ASSIGN_OR_RETURN(const GridCheckpoint checkpoint, LoadGridCheckpoint(*file));
  ASSIGN_OR_RETURN(const auto tokenizer, model::Tokenizer::FromGguf(*file));
  ASSIGN_OR_RETURN(const std::vector<TokenizedExample> examples,
                   ReadExamples(absl::GetFlag(FLAGS_examples), *tokenizer,
                                absl::GetFlag(FLAGS_count)));
  PackedSequence sequence;
  for (size_t i = 0; i < examples.size(); ++i) {
    AppendSegment(examples[i], static_cast<int64_t>(i),
                  static_cast<int64_t>(examples[i].tokens.size()), &sequence);
  }
  std::printf("%-42s %13s %13s %9s\n", "gradient of", "slope", "gradient . d",
              "error");
  Check check(checkpoint, sequence);
  check.Run();
  return check.worst();
}

}  // namespace
}  // namespace onegrid::finetuner

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::StatusOr<double> worst = onegrid::finetuner::Run();
  if (!worst.ok()) {
    std::fprintf(stderr, "gradient_check: %s\n",
                 std::string(worst.status().message()).c_str());
    return 2;
  }
  std::printf("gradients: largest error is %.2f of its bound, target <= 1\n",
              *worst);
  return *worst <= 1 ? 0 : 1;
}
