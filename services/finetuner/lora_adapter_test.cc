// Adapters whose linears differ in rank and scale.
#include "services/finetuner/lora_adapter.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/objectives.h"
#include "services/finetuner/tiny_model.h"

namespace onegrid::finetuner {
namespace {

class LoraAdapterTest : public testing::Test {
 protected:
  LoraAdapterTest() : checkpoint_(MakeTinyCheckpoint(1)) {
    at::set_num_threads(1);
    options_.rank = 4;
    options_.alpha = 8;
    options_.use_rslora = true;
    options_.patterns = {{"v_proj", 2, 3}, {"mlp.down_proj", 9, 0}};
    options_.lora_plus_ratio = 16;
  }

  LoraAdapter MakeAdapter() const {
    LoraAdapter adapter = *LoraAdapter::Create(checkpoint_.specs, options_, 3);
    at::Tensor parameters = adapter.parameters();
    parameters.add_(0.1 * at::randn(parameters.sizes()));
    return adapter;
  }

  const GridCheckpoint checkpoint_;
  LoraOptions options_;
};

TEST_F(LoraAdapterTest, EachLinearHasItsOwnScale) {
  const LoraAdapter adapter = MakeAdapter();
  // q, v and down of layer 0.
  for (const auto& [linear, rank, scale] : {std::tuple{0, 4, 8.0 / 2},
                                            {2, 2, 3 / std::sqrt(2.0)},
                                            {6, 9, 8.0 / 3}}) {
    bool found = false;
    for (const LoraGroup& group : adapter.groups()) {
      for (const LoraLinearParameters& member : group.members) {
        if (member.linear != linear) continue;
        found = true;
        EXPECT_EQ(member.a.size(0), rank);
        EXPECT_EQ(member.scale, scale);
        EXPECT_TRUE(at::allclose(adapter.Delta(linear),
                                 scale * at::mm(member.b, member.a)));
      }
    }
    EXPECT_TRUE(found) << linear;
  }
}

TEST_F(LoraAdapterTest, SpansGiveBItsLearningRate) {
  const LoraAdapter adapter = MakeAdapter();
  const std::vector<ParameterSpan> spans = adapter.spans();
  const at::Tensor rates = at::zeros_like(adapter.parameters());
  int64_t next = 0;
  for (const ParameterSpan& span : spans) {
    EXPECT_EQ(span.begin, next);
    next = span.end;
    rates.narrow(0, span.begin, span.end - span.begin)
        .fill_(span.learning_rate_multiplier);
  }
  EXPECT_EQ(next, adapter.parameters().numel());
  const float* base = adapter.parameters().const_data_ptr<float>();
  for (const LoraGroup& group : adapter.groups()) {
    for (const LoraLinearParameters& member : group.members) {
      EXPECT_EQ(rates[member.a.const_data_ptr<float>() - base].item<float>(),
                1);
      const int64_t b = member.b.const_data_ptr<float>() - base;
      EXPECT_EQ(rates[b].item<float>(), 16);
      EXPECT_EQ(rates[b + member.b.numel() - 1].item<float>(), 16);
    }
  }
  options_.lora_plus_ratio = 1;
  EXPECT_EQ(MakeAdapter().spans().size(), 1u);
}

TEST_F(LoraAdapterTest, GradientsMatchFiniteDifferences) {
  const GemmaModel model(MakeSharedWeights(checkpoint_, 64),
                         checkpoint_.linears, at::kFloat);
  LoraAdapter adapter = MakeAdapter();
  const std::vector<TokenizedExample> examples = MakeTinyExamples(3, 10, 2);
  const PackedSequence sequence = Pack(examples, {0, 1, 2}, 64)[0];
  AdapterTunable tunable(model, &adapter, {});
  const auto loss = [&] {
    tunable.Refresh();
    adapter.gradients().zero_();
    return tunable.AddGradients(sequence, 1, nullptr).cross_entropy;
  };
  loss();
  const at::Tensor gradient = adapter.gradients().clone();
  at::Tensor parameters = adapter.parameters();
  const at::Tensor start = parameters.clone();
  // Along the whole gradient, and along its part in each linear's B.
  std::vector<at::Tensor> directions = {gradient / gradient.norm()};
  for (const ParameterSpan& span : adapter.spans()) {
    if (span.learning_rate_multiplier == 1) continue;
    at::Tensor part = at::zeros_like(gradient);
    const int64_t count = span.end - span.begin;
    part.narrow(0, span.begin, count)
        .copy_(gradient.narrow(0, span.begin, count));
    directions.push_back(part / part.norm());
  }
  for (const at::Tensor& direction : directions) {
    constexpr double kStep = 4e-3;
    parameters.copy_(start + kStep * direction);
    const double above = loss();
    parameters.copy_(start - kStep * direction);
    const double below = loss();
    const double expected = (direction * gradient).sum().item<double>();
    EXPECT_NEAR((above - below) / (2 * kStep), expected, 0.01 * expected);
  }
}

}  // namespace
}  // namespace onegrid::finetuner
