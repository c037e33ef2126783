// The learning path as a whole on a tiny random model, in float32 on one
// thread: forward, backward, optimizer, checkpoint.
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/quant/int8_activations.h"
#include "services/common/error_info.h"
#include "services/finetuner/attention.h"
#include "services/finetuner/evaluate.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/head_loss.h"
#include "services/finetuner/objectives.h"
#include "services/finetuner/row_ops.h"
#include "services/finetuner/tensor_file.h"
#include "services/finetuner/tiny_model.h"
#include "services/finetuner/trainer.h"

namespace onegrid::finetuner {
namespace {

constexpr int64_t kTokens = 64;

class LearnTest : public testing::Test {
 protected:
  LearnTest()
      : checkpoint_(MakeTinyCheckpoint(1)),
        model_(MakeSharedWeights(checkpoint_, kTokens), checkpoint_.linears,
               at::kFloat),
        examples_(MakeTinyExamples(40, 20, 2)) {
    at::set_num_threads(1);
    lora_.rank = 4;
    lora_.alpha = 8;
    options_.sequence_tokens = kTokens;
    options_.learning_rate = 1e-2;
    options_.seed = 3;
  }

  LoraAdapter MakeAdapter() const {
    return *LoraAdapter::Create(checkpoint_.specs, lora_, options_.seed);
  }

  // Sum of losses; gradients of it in adapter->gradients().
  double Loss(LoraAdapter* adapter, const PackedSequence& sequence) const {
    AdapterTunable tunable(model_, adapter, {});
    tunable.Refresh();
    at::Tensor gradients = adapter->gradients();
    gradients.zero_();
    return tunable.AddGradients(sequence, 1, nullptr).cross_entropy;
  }

  const GridCheckpoint checkpoint_;
  const GemmaModel model_;
  const std::vector<TokenizedExample> examples_;
  LoraOptions lora_;
  StageOptions options_;
};

TEST_F(LearnTest, GradientsMatchFiniteDifferences) {
  LoraAdapter adapter = MakeAdapter();
  at::Tensor parameters = adapter.parameters();
  parameters.add_(0.1 * at::randn(parameters.sizes()));
  const PackedSequence sequence =
      Pack(examples_, ShuffledOrder(40, 1), kTokens)[0];
  Loss(&adapter, sequence);
  const at::Tensor gradient = adapter.gradients().clone();
  const at::Tensor start = parameters.clone();
  // Along the gradient, and along parts of it: A and B of single linears are
  // consecutive, so chunks of the vector tell them apart.
  std::vector<at::Tensor> directions = {gradient / gradient.norm()};
  for (int64_t chunk = 0; chunk < 6; ++chunk) {
    const int64_t n = gradient.numel() / 6;
    at::Tensor part = at::zeros_like(gradient);
    part.narrow(0, chunk * n, n).copy_(gradient.narrow(0, chunk * n, n));
    directions.push_back(part / part.norm());
  }
  for (const at::Tensor& direction : directions) {
    const double step = 4e-3;
    parameters.copy_(start + step * direction);
    const double above = Loss(&adapter, sequence);
    parameters.copy_(start - step * direction);
    const double below = Loss(&adapter, sequence);
    const double expected = (direction * gradient).sum().item<double>();
    EXPECT_NEAR((above - below) / (2 * step), expected, 0.01 * expected);
  }
}

TEST_F(LearnTest, PackedLossAndGradientsEqualUnpackedOnes) {
  LoraAdapter adapter = MakeAdapter();
  at::Tensor parameters = adapter.parameters();
  parameters.add_(0.1 * at::randn(parameters.sizes()));
  const PackedSequence packed =
      Pack(examples_, ShuffledOrder(40, 1), kTokens)[0];
  ASSERT_GT(packed.segments(), 3);
  const double packed_loss = Loss(&adapter, packed);
  const at::Tensor packed_gradient = adapter.gradients().clone();
  double sum = 0;
  at::Tensor gradient = at::zeros_like(packed_gradient);
  for (const int64_t example : packed.examples) {
    PackedSequence alone;
    AppendSegment(examples_[static_cast<size_t>(example)], 0, kTokens, &alone);
    sum += Loss(&adapter, alone);
    gradient += adapter.gradients();
  }
  EXPECT_NEAR(packed_loss, sum, 1e-5 * sum);
  EXPECT_LT((gradient - packed_gradient).norm().item<double>(),
            1e-5 * gradient.norm().item<double>());
}

TEST_F(LearnTest, SlidingLayersSeeOnlyTheirWindow) {
  // One sliding layer: a change at position 0 reaches positions before the
  // window's end and none behind it.
  const c10::NoGradGuard no_grad;
  PackedSequence sequence;
  AppendSegment({std::vector<int32_t>(20, 7), {}}, 0, kTokens, &sequence);
  const AttentionLayout layout = MakeAttentionLayout(sequence);
  const auto first_layer = [&] {
    LayerStream stream = model_.Start(sequence);
    model_.ForwardLayer(0, layout, {}, &stream);
    return stream.x;
  };
  const at::Tensor before = first_layer();
  sequence.tokens[0] = 8;
  const at::Tensor after = first_layer();
  const at::Tensor change = (after - before).abs().amax(1);
  for (int64_t i = 0; i < 20; ++i) {
    if (i < kTinyWindow) {
      EXPECT_GT(change[i].item<float>(), 0) << i;
    } else {
      EXPECT_EQ(change[i].item<float>(), 0) << i;
    }
  }
}

// Two tokens, one head: the served attention by hand, from the scalar rules.
TEST(AsServedTest, AttentionReadsRoundedKeysAndValues) {
  constexpr int64_t kDim = 32;
  AttentionSpec spec{1,
                     1,
                     kDim,
                     8,
                     kDim,
                     2 * kDim,
                     false,
                     0.7,
                     1e-6,
                     at::ones({kDim}),
                     at::ones({kDim}),
                     MakeRopeTable(2, kDim, 1e4, 1.0)};
  PackedSequence sequence;
  AppendSegment({{5, 6}, {}}, 0, 2, &sequence);
  const at::Tensor qkv = at::randn({2, 3 * kDim});
  const at::Tensor out =
      Attention(qkv, at::Tensor(), spec, MakeAttentionLayout(sequence), true);
  const auto row = [&](int64_t token, int64_t part) {
    const at::Tensor x = qkv[token].narrow(0, part * kDim, kDim).contiguous();
    const float* data = x.const_data_ptr<float>();
    std::vector<float> y(data, data + kDim);
    if (part == 2) return y;
    RmsNormRow(data, spec.q_norm.const_data_ptr<float>(), kDim, 1e-6f,
               y.data());
    const int64_t angle = token * kDim / 2;
    RopeRow(spec.rope.cosines.const_data_ptr<float>() + angle,
            spec.rope.sines.const_data_ptr<float>() + angle, kDim / 2, 1.0f,
            y.data());
    return y;
  };
  std::vector<float> q = row(1, 0), values[2];
  double score[2];
  for (int64_t t = 0; t < 2; ++t) {
    std::vector<float> key = row(t, 1);
    values[t] = row(t, 2);
    quant::FakeQuantizeKey(absl::MakeSpan(key));
    quant::FakeQuantizeInt8(absl::MakeSpan(values[t]));
    score[t] = 0;
    for (int64_t i = 0; i < kDim; ++i) score[t] += 0.7 * q[i] * key[i];
  }
  const double p = 1 / (1 + std::exp(score[0] - score[1]));
  for (int64_t i = 0; i < kDim; ++i) {
    EXPECT_FLOAT_EQ(out[0][i].item<float>(), values[0][i]);
    EXPECT_NEAR(out[1][i].item<float>(),
                (1 - p) * values[0][i] + p * values[1][i], 2e-6);
  }
}

TEST_F(LearnTest, ServedHeadInputHas16Bits) {
  const c10::NoGradGuard no_grad;
  const at::Tensor x = at::randn({3, model_.config().hidden});
  const at::Tensor served = model_.FinalHidden(x, {0, 2}, true);
  const at::Tensor expected = model_.FinalHidden(x, {0, 2}).contiguous();
  quant::FakeQuantizeInt16(
      absl::MakeSpan(expected.mutable_data_ptr<float>(),
                     static_cast<size_t>(expected.numel())));
  EXPECT_TRUE(at::equal(served, expected));
}

TEST_F(LearnTest, ChunkedHeadLossEqualsPlainLoss) {
  const Head& head = model_.head();
  at::Tensor hidden = at::randn({7, 64}).requires_grad_(true);
  const std::vector<int32_t> targets = {1, 2, 3, 95, 0, 50, 3};
  const at::Tensor plain =
      -at::log_softmax(at::mm(hidden, head.weight.t()).to(at::kDouble), 1)
           .gather(1, at::tensor(targets, at::kInt).to(at::kLong).unsqueeze(1))
           .sum();
  plain.backward();
  const at::Tensor expected = hidden.grad().clone();
  for (const int64_t chunk : {1, 3, 7, 64}) {
    hidden.mutable_grad().reset();
    const at::Tensor loss = HeadLossSum(hidden, head, targets, chunk);
    loss.backward();
    EXPECT_NEAR(loss.item<double>(), plain.item<double>(), 1e-4);
    EXPECT_LT((hidden.grad() - expected).abs().max().item<float>(), 1e-5);
  }
}

TEST_F(LearnTest, ResumedRunEqualsUninterruptedOneBitForBit) {
  options_.max_steps = 12;  // More than an epoch.
  lora_.dropout = 0.1;
  const auto never = [] { return false; };
  LoraAdapter whole = MakeAdapter();
  AdapterTunable whole_tunable(model_, &whole, {});
  Trainer uninterrupted(&whole_tunable, examples_, options_);
  std::vector<double> losses;
  while (uninterrupted.step() < 12) {
    losses.push_back(uninterrupted.Step(never)->loss);
  }
  EXPECT_LT(losses.back(), losses.front());

  const std::string path = testing::TempDir() + "/resume.safetensors";
  {
    LoraAdapter first = MakeAdapter();
    AdapterTunable tunable(model_, &first, {});
    Trainer trainer(&tunable, examples_, options_);
    while (trainer.step() < 7) ASSERT_TRUE(trainer.Step(never).ok());
    trainer.Offer(2.5);
    trainer.Offer(3.5);
    ASSERT_TRUE(trainer.Save(path, "learn", {}).ok());
  }
  LoraAdapter second = MakeAdapter();
  AdapterTunable tunable(model_, &second, {});
  Trainer trainer(&tunable, examples_, options_);
  const auto file = TensorFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Metadata("stage"), "learn");
  const absl::Status loaded = trainer.Load(*file, path);
  ASSERT_TRUE(loaded.ok()) << loaded;
  EXPECT_EQ(trainer.best_score(), 2.5);
  EXPECT_EQ(trainer.best_step(), 7);
  EXPECT_EQ(trainer.offers_since_best(), 1);
  EXPECT_EQ(trainer.step(), 7);
  while (trainer.step() < 12) {
    const auto step = static_cast<size_t>(trainer.step());
    EXPECT_EQ(trainer.Step(never)->loss, losses[step]);
  }
  EXPECT_TRUE(at::equal(whole.parameters(), second.parameters()));
}

TEST_F(LearnTest, CheckpointOfAnotherRunIsRefused) {
  const std::string path = testing::TempDir() + "/other.safetensors";
  LoraAdapter adapter = MakeAdapter();
  AdapterTunable tunable(model_, &adapter, {});
  ASSERT_TRUE(
      Trainer(&tunable, examples_, options_).Save(path, "learn", {}).ok());
  options_.seed = 4;
  Trainer other(&tunable, examples_, options_);
  const auto file = TensorFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(common::ErrorReason(other.Load(*file, path)),
            "CHECKPOINT_MISMATCH");
}

TEST_F(LearnTest, CancelledStepChangesNothing) {
  LoraAdapter adapter = MakeAdapter();
  AdapterTunable tunable(model_, &adapter, {});
  Trainer trainer(&tunable, examples_, options_);
  const at::Tensor before = adapter.parameters().clone();
  EXPECT_EQ(trainer.Step([] { return true; }).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(trainer.step(), 0);
  EXPECT_TRUE(at::equal(before, adapter.parameters()));
}

TEST_F(LearnTest, OnlyTargetedLinearsAreAdapted) {
  lora_.targets = {"q_proj", "down_proj"};
  LoraAdapter adapter = MakeAdapter();
  EXPECT_EQ(adapter.group(0, 0)->members.size(), 1u);
  EXPECT_EQ(adapter.group(0, 1), nullptr);
  EXPECT_TRUE(adapter.Delta(0).defined());
  EXPECT_FALSE(adapter.Delta(1).defined());
  const PackedSequence sequence =
      Pack(examples_, ShuffledOrder(40, 1), kTokens)[0];
  Loss(&adapter, sequence);
  EXPECT_GT(adapter.gradients().norm().item<float>(), 0);
}

TEST(LearningRateTest, WarmsUpThenFallsToZero) {
  EXPECT_DOUBLE_EQ(LearningRateAt(0, 100, 1, 0.05), 0.2);
  EXPECT_DOUBLE_EQ(LearningRateAt(4, 100, 1, 0.05), 1);
  EXPECT_NEAR(LearningRateAt(52, 100, 1, 0.05), 0.5, 0.02);
  EXPECT_LT(LearningRateAt(99, 100, 1, 0.05), 1e-3);
  EXPECT_DOUBLE_EQ(LearningRateAt(0, 1, 1, 0), 1);
}

TEST_F(LearnTest, EvaluationCountsWholeCompletions) {
  // A model trained on one example reproduces it and not the others.
  options_.max_steps = 60;
  const std::vector<TokenizedExample> one = {examples_[0]};
  LoraAdapter adapter = MakeAdapter();
  AdapterTunable tunable(model_, &adapter, {});
  Trainer trainer(&tunable, one, options_);
  while (trainer.step() < 60) {
    ASSERT_TRUE(trainer.Step([] { return false; }).ok());
  }
  const auto always = [](int64_t, int64_t) { return true; };
  ForwardOptions with_adapter;
  with_adapter.adapter = &adapter;
  const auto known = Evaluate(model_, with_adapter, one, kTokens, always);
  EXPECT_EQ(known->accuracy, 100);
  EXPECT_EQ(known->completion_tokens, 3);
  EXPECT_LT(known->perplexity, 1.5);
  const auto all = Evaluate(model_, with_adapter, examples_, kTokens, always);
  EXPECT_LT(all->accuracy, 20);
  EXPECT_EQ(all->examples, 40);
  EXPECT_EQ(
      Evaluate(model_, {}, one, kTokens, [](int64_t, int64_t) { return false; })
          .status()
          .code(),
      absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace onegrid::finetuner
