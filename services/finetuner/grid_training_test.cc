// Training of the grid itself on a tiny random model, in float32 on one thread:
// gradients against finite differences, losses against LibTorch's own
// differentiation, resumption.
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/quant/grid.h"
#include "services/common/error_info.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/grid_parameters.h"
#include "services/finetuner/grid_rows.h"
#include "services/finetuner/head_loss.h"
#include "services/finetuner/objectives.h"
#include "services/finetuner/teacher.h"
#include "services/finetuner/tensor_file.h"
#include "services/finetuner/tiny_model.h"
#include "services/finetuner/trainer.h"

namespace onegrid::finetuner {
namespace {

constexpr int64_t kTokens = 64;

class GridTrainingTest : public testing::Test {
 protected:
  GridTrainingTest()
      : checkpoint_(MakeTinyCheckpoint(1)),
        shared_(MakeSharedWeights(checkpoint_, kTokens)),
        model_(shared_, checkpoint_.linears, at::kFloat),
        examples_(MakeTinyExamples(40, 20, 2)),
        sequence_(Pack(examples_, ShuffledOrder(40, 1), kTokens)[0]) {
    at::set_num_threads(1);
    options_.sequence_tokens = kTokens;
    options_.seed = 3;
    options_.adam_eps = 1e-12;
  }

  GridParameters Make(const GridTraining& training) const {
    auto made = GridParameters::Create(checkpoint_.linears, {}, training);
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }

  double Loss(GridTunable* tunable) const {
    tunable->Refresh();
    at::Tensor gradients = tunable->gradients();
    gradients.zero_();
    return tunable->AddGradients(sequence_, 1, nullptr).cross_entropy;
  }

  const GridCheckpoint checkpoint_;
  const std::shared_ptr<const SharedWeights> shared_;
  GemmaModel model_;
  const std::vector<TokenizedExample> examples_;
  const PackedSequence sequence_;
  StageOptions options_;
};

TEST_F(GridTrainingTest, ScaleGradientsMatchFiniteDifferences) {
  // The tiny model's scales are powers of two, so that moves of k / 128 are
  // dual-exact: the snapped forward is then the smooth one.
  GridParameters parameters = Make({});
  GridTunable tunable(&model_, &parameters, {});
  at::Tensor values = tunable.parameters();
  Loss(&tunable);
  const at::Tensor gradient = tunable.gradients().clone();
  ASSERT_GT(gradient.norm().item<double>(), 0);
  const int64_t n = values.numel();
  for (int64_t part = 0; part < 6; ++part) {
    // Along the signs of a part of the gradient, which holds some linears.
    at::Tensor direction = at::zeros_like(gradient);
    direction.narrow(0, part * (n / 6), n / 6)
        .copy_(gradient.narrow(0, part * (n / 6), n / 6).sign());
    const double step = 1.0 / 128;
    values.copy_(step * direction);
    const double above = Loss(&tunable);
    values.copy_(-step * direction);
    const double below = Loss(&tunable);
    values.zero_();
    const double expected = (direction * gradient).sum().item<double>();
    EXPECT_NEAR((above - below) / (2 * step), expected, 0.03 * expected)
        << part;
  }
}

// Collects whole weight gradients.
class CollectingSink : public WeightGradientSink {
 public:
  void Add(int64_t first_linear, const at::Tensor& dw) override {
    at::Tensor& sum = sums[first_linear];
    sum = sum.defined() ? sum + dw : dw.clone();
  }
  std::map<int64_t, at::Tensor> sums;
};

TEST_F(GridTrainingTest, WeightGradientsMatchFiniteDifferences) {
  CollectingSink sink;
  const Labels labels = LabelsOf(sequence_);
  const AttentionLayout layout = MakeAttentionLayout(sequence_);
  const auto loss = [&](WeightGradientSink* to) {
    ForwardOptions options;
    options.weight_gradients = to;
    const at::Tensor x = model_.Forward(sequence_, layout, options);
    at::Tensor sum = HeadLossSum(model_.FinalHidden(x, labels.rows),
                                 model_.head(), labels.targets);
    if (to != nullptr) sum.backward();
    return sum.item<double>();
  };
  loss(&sink);
  const c10::NoGradGuard no_grad;
  for (const int64_t linear : {0, 2, 3, 5, 6, 9, 13}) {
    // The group that the linear is in, and where.
    const auto group = std::prev(sink.sums.upper_bound(linear));
    int64_t offset = 0;
    for (int64_t i = group->first; i < linear; ++i) {
      offset += checkpoint_.linears[static_cast<size_t>(i)].rows;
    }
    at::Tensor weight = model_.linear(linear);
    const at::Tensor gradient = group->second.narrow(0, offset, weight.size(0));
    const at::Tensor direction = gradient / gradient.norm();
    const double step = 2e-3;
    const at::Tensor before = weight.clone();
    weight.add_(direction, step);
    const double above = loss(nullptr);
    weight.copy_(before).sub_(direction, step);
    const double below = loss(nullptr);
    weight.copy_(before);
    const double expected = gradient.norm().item<double>();
    EXPECT_NEAR((above - below) / (2 * step), expected, 0.01 * expected)
        << linear;
  }
}

// The straight-through estimator is the gradient of a smooth function in which
// each rounding error stays as it is.
TEST(GridGradRowTest, IsTheGradientOfTheFunctionWithFrozenRoundingErrors) {
  const quant::Grid& grid = quant::kInt4G32;
  std::vector<float> phi(grid.group), dw(grid.group), w(grid.group),
      d_phi(grid.group);
  for (int i = 0; i < grid.group; ++i) {
    phi[i] = -9.7f + 0.61f * static_cast<float>(i);  // Some beyond the codes.
    dw[i] = std::sin(1.0f + static_cast<float>(i));
  }
  const float first = 0x1p-5f;
  for (const bool weights_stay : {false, true}) {
    const float scale = 0x1.2p-5f;
    const float ratio = first / scale;
    float d_move = 0;
    GridGradRow(dw.data(), phi.data(), weights_stay ? &ratio : nullptr, &first,
                &scale, grid.group, grid, d_phi.data(), &d_move);
    // w = scale * (v + error), error frozen inside, the end code outside.
    const auto value = [&](const std::vector<double>& p, double s) {
      double sum = 0;
      for (int i = 0; i < grid.group; ++i) {
        const double r = weights_stay ? double{first} / s : 1.0;
        const double v0 = double{phi[i]} * (weights_stay ? ratio : 1.0f);
        const double code = std::nearbyint(std::min(7.0, std::max(-8.0, v0)));
        const bool inside = v0 >= -8 && v0 <= 7;
        const double v = inside ? p[i] * r + (code - v0) : code;
        sum += dw[i] * s * v;
      }
      return sum;
    };
    const std::vector<double> at(phi.begin(), phi.end());
    const double h = 1e-6;
    const double slope =
        (value(at, scale + h * first) - value(at, scale - h * first)) / (2 * h);
    EXPECT_NEAR(d_move, slope, 1e-5 * std::abs(slope) + 1e-6);
    for (int i = 0; i < grid.group; ++i) {
      std::vector<double> up = at, down = at;
      up[i] += h;
      down[i] -= h;
      EXPECT_NEAR(d_phi[i], (value(up, scale) - value(down, scale)) / (2 * h),
                  1e-6)
          << i;
    }
  }
}

TEST_F(GridTrainingTest, ForwardIsTheDequantizedModel) {
  GridTraining training;
  training.rank = 4;
  training.alpha = 8;
  GridParameters low_rank = Make(training);
  training = {};
  training.latent = true;
  GridParameters latent = Make(training);
  for (GridParameters* parameters : {&low_rank, &latent}) {
    at::Tensor values = parameters->parameters();
    values.add_(0.05 * at::randn(values.sizes()));
    parameters->WriteTo(&model_);
    int64_t changed = 0;
    for (int64_t i = 0; i < static_cast<int64_t>(checkpoint_.linears.size());
         ++i) {
      const quant::GridMatrix matrix = parameters->Quantized(i);
      ASSERT_TRUE(quant::ValidateMatrix(matrix).ok());
      for (const float scale : matrix.scales) {
        ASSERT_TRUE(quant::IsDualExact(scale));
      }
      EXPECT_TRUE(at::equal(DequantizeTensor(matrix), model_.linear(i)));
      changed += matrix.codes != checkpoint_.linears[i].codes;
    }
    EXPECT_GT(changed, 0);
  }
}

TEST_F(GridTrainingTest, StartsAtTheCheckpoint) {
  for (const bool latent : {false, true}) {
    GridTraining training;
    training.latent = latent;
    training.rank = latent ? 0 : 4;
    training.alpha = 8;
    const GridParameters parameters = Make(training);
    for (size_t i = 0; i < checkpoint_.linears.size(); ++i) {
      const quant::GridMatrix matrix =
          parameters.Quantized(static_cast<int64_t>(i));
      EXPECT_EQ(matrix.codes, checkpoint_.linears[i].codes);
      EXPECT_EQ(matrix.scales, checkpoint_.linears[i].scales);
    }
  }
}

TEST_F(GridTrainingTest, LatentWeightsKeepTheCodesTheyStartWith) {
  // Codes that rounding the weights would not give.
  std::vector<at::Tensor> weights;
  for (const quant::GridMatrix& matrix : checkpoint_.linears) {
    const at::Tensor values = DequantizeTensor(matrix);
    weights.push_back(values + 0x1p-5 * at::randn(values.sizes()));
  }
  GridTraining training;
  training.latent = true;
  const auto parameters =
      GridParameters::Create(checkpoint_.linears, weights, training);
  ASSERT_TRUE(parameters.ok());
  for (size_t i = 0; i < checkpoint_.linears.size(); ++i) {
    EXPECT_EQ(parameters->Quantized(static_cast<int64_t>(i)).codes,
              checkpoint_.linears[i].codes);
  }
  EXPECT_FALSE(at::equal(
      parameters->parameters(),
      GridParameters::Create(checkpoint_.linears, {}, training)->parameters()));
}

TEST_F(GridTrainingTest, FixedLinearsOutlastWeightDecay) {
  GridTraining training;
  training.latent = true;
  training.fixed.assign(checkpoint_.linears.size(), false);
  training.fixed[3] = true;
  GridParameters parameters = Make(training);
  at::Tensor values = parameters.parameters();
  values.mul_(0.5);  // What decay would do.
  const std::vector<quant::GridMatrix> all = parameters.AllQuantized();
  EXPECT_EQ(all[3].codes, checkpoint_.linears[3].codes);
  EXPECT_EQ(all[3].scales, checkpoint_.linears[3].scales);
  EXPECT_NE(all[2].codes, checkpoint_.linears[2].codes);
  training.fixed[3] = false;
  EXPECT_LT(values.numel(), Make(training).parameters().numel());
}

TEST_F(GridTrainingTest, ACheckpointOfAnotherAdapterIsRefused) {
  GridParameters parameters = Make({});
  GridTunable tunable(&model_, &parameters, {}, "adapter rank=8");
  const std::string path = testing::TempDir() + "/origin.safetensors";
  ASSERT_TRUE(
      Trainer(&tunable, examples_, options_).Save(path, "polish", {}).ok());
  const auto file = TensorFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(Trainer(&tunable, examples_, options_).Load(*file, path).ok());
  GridTunable other(&model_, &parameters, {}, "adapter rank=8 kept");
  EXPECT_EQ(common::ErrorReason(
                Trainer(&other, examples_, options_).Load(*file, path)),
            "CHECKPOINT_MISMATCH");
}

TEST_F(GridTrainingTest, RefusesScalesThatTrainingWouldChange) {
  std::vector<quant::GridMatrix> linears = checkpoint_.linears;
  linears[3].scales[1] = -0x1p-5f;
  EXPECT_EQ(
      common::ErrorReason(GridParameters::Create(linears, {}, {}).status()),
      "NOT_ON_GRID");
  GridTraining nothing;
  nothing.scales = false;
  EXPECT_EQ(
      common::ErrorReason(
          GridParameters::Create(checkpoint_.linears, {}, nothing).status()),
      "INVALID_HYPERPARAMETER");
}

// Logits of LibTorch's own differentiation.
at::Tensor Logits(const at::Tensor& hidden, const Head& head) {
  return at::mm(hidden, head.weight.t()).to(at::kDouble);
}

TEST_F(GridTrainingTest, DistillationEqualsPlainDivergence) {
  const Head& head = model_.head();
  const at::Tensor teacher_hidden = at::randn({7, 64});
  at::Tensor hidden =
      (teacher_hidden + 0.3 * at::randn({7, 64})).requires_grad_(true);
  const std::vector<int32_t> targets = {1, 2, 3, 95, 0, 50, 3};
  const at::Tensor log_q =
      at::log_softmax(Logits(teacher_hidden, head), 1).detach();
  const at::Tensor log_p = at::log_softmax(Logits(hidden, head), 1);
  const at::Tensor kl = (log_q.exp() * (log_q - log_p)).sum();
  const at::Tensor ce =
      -log_p.gather(1, at::tensor(targets, at::kInt).to(at::kLong).unsqueeze(1))
           .sum();
  (0.25 * ce + 2.0 * kl).backward();
  const at::Tensor expected = hidden.grad().clone();
  HeadTeacher full;
  full.hidden = teacher_hidden;
  full.head = &head;
  HeadTeacher all;  // The most likely tokens, all of them.
  all.top = ScoreTop(teacher_hidden, head, head.weight.size(0));
  for (const HeadTeacher* teacher : {&full, &all}) {
    for (const int64_t chunk : {3, 64}) {
      hidden.mutable_grad().reset();
      LossSums sums;
      HeadLoss(hidden, head, targets, {0.25, 2.0}, teacher, &sums, chunk)
          .backward();
      EXPECT_NEAR(sums.kl, kl.item<double>(), 1e-4);
      EXPECT_NEAR(sums.cross_entropy, ce.item<double>(), 1e-4);
      EXPECT_LT((hidden.grad() - expected).abs().max().item<float>(), 2e-5);
    }
  }
}

TEST_F(GridTrainingTest, TopTokensLeaveTheRestAsOneToken) {
  const Head& head = model_.head();
  const at::Tensor teacher_hidden = at::randn({5, 64});
  at::Tensor hidden = at::randn({5, 64}).requires_grad_(true);
  HeadTeacher teacher;
  teacher.top = ScoreTop(teacher_hidden, head, 8);
  const at::Tensor q = teacher.top.logprobs.to(at::kDouble).exp();
  const at::Tensor p = at::softmax(Logits(hidden, head), 1)
                           .gather(1, teacher.top.ids.to(at::kLong));
  const at::Tensor q_rest = 1 - q.sum(1), p_rest = 1 - p.sum(1);
  const at::Tensor kl = (q * (q.log() - p.log())).sum() +
                        (q_rest * (q_rest.log() - p_rest.log())).sum();
  kl.backward();
  const at::Tensor expected = hidden.grad().clone();
  hidden.mutable_grad().reset();
  LossSums sums;
  const std::vector<int32_t> targets = {1, 2, 3, 4, 5};
  HeadLoss(hidden, head, targets, {0, 1}, &teacher, &sums).backward();
  EXPECT_NEAR(sums.kl, kl.item<double>(), 1e-4);
  EXPECT_LT((hidden.grad() - expected).abs().max().item<float>(), 2e-5);
}

TEST_F(GridTrainingTest, EachModeLearnsAndResumesBitForBit) {
  const GemmaModel teacher_model(shared_, checkpoint_.linears, at::kFloat);
  const auto teacher = MakeModelTeacher(teacher_model, nullptr);
  Objective objective;
  objective.teacher = teacher.get();
  objective.weights = {1.0, 0.1};
  objective.as_served = true;
  GridTraining scales, low_rank, latent;
  low_rank.rank = 4;
  low_rank.alpha = 8;
  latent.latent = true;
  latent.latent_rate = 3;
  options_.max_steps = 12;  // More than an epoch.
  options_.learning_rate = 1e-2;
  const auto never = [] { return false; };
  const std::string path = testing::TempDir() + "/grid.safetensors";
  for (const GridTraining& training : {scales, low_rank, latent}) {
    GridParameters whole = Make(training);
    GridTunable whole_tunable(&model_, &whole, objective);
    Trainer uninterrupted(&whole_tunable, examples_, options_);
    std::vector<double> losses;
    while (uninterrupted.step() < 12) {
      const auto metrics = uninterrupted.Step(never);
      ASSERT_TRUE(metrics.ok()) << metrics.status();
      losses.push_back(metrics->loss);
      if (uninterrupted.step() == 5) {
        ASSERT_TRUE(uninterrupted.Save(path, "train", {}).ok());
      }
    }
    EXPECT_LT(losses.back(), losses.front());
    GridParameters again = Make(training);
    GridTunable tunable(&model_, &again, objective);
    Trainer trainer(&tunable, examples_, options_);
    const auto file = TensorFile::Open(path);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(trainer.Load(*file, path).ok());
    while (trainer.step() < 12) {
      const auto step = static_cast<size_t>(trainer.step());
      EXPECT_EQ(trainer.Step(never)->loss, losses[step]);
    }
    EXPECT_TRUE(at::equal(whole.parameters(), again.parameters()));
  }
}

TEST_F(GridTrainingTest, CachedTeacherSaysWhatTheModelSays) {
  const GemmaModel teacher_model(shared_, checkpoint_.linears, at::kFloat);
  const auto cached =
      MakeCachedTeacher(teacher_model, nullptr, examples_, kTokens, 96,
                        [](int64_t, int64_t) { return true; });
  ASSERT_TRUE(cached.ok());
  const Labels labels = LabelsOf(sequence_);
  const AttentionLayout layout = MakeAttentionLayout(sequence_);
  const HeadTeacher kept = (*cached)->Judge(sequence_, layout, labels);
  const HeadTeacher said = MakeModelTeacher(teacher_model, nullptr)
                               ->Judge(sequence_, layout, labels);
  const TopLogprobs top = ScoreTop(said.hidden, *said.head, 96);
  ASSERT_EQ(kept.top.ids.sizes(), top.ids.sizes());
  EXPECT_LT((kept.top.logprobs - top.logprobs).abs().max().item<float>(), 1e-5);
  EXPECT_EQ(MakeCachedTeacher(teacher_model, nullptr, examples_, kTokens, 8,
                              [](int64_t, int64_t) { return false; })
                .status()
                .code(),
            absl::StatusCode::kCancelled);
}

TEST_F(GridTrainingTest, BestParametersAreKept) {
  GridParameters parameters = Make({});
  GridTunable tunable(&model_, &parameters, {});
  Trainer trainer(&tunable, examples_, options_);
  trainer.Offer(2.0);
  at::Tensor values = tunable.parameters();
  values.add_(0.01);
  trainer.Offer(1.0);
  const at::Tensor best = tunable.parameters().clone();
  values.add_(0.01);
  trainer.Offer(1.0);
  trainer.Offer(NAN);
  EXPECT_EQ(trainer.offers_since_best(), 2);
  trainer.RestoreBest();
  EXPECT_TRUE(at::equal(tunable.parameters(), best));
}

}  // namespace
}  // namespace onegrid::finetuner
