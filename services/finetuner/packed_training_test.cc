// Training on packed conversations equals training on each alone: the loss and
// every gradient, on a tiny random model in float32 on one thread.
#include <ATen/Parallel.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/lora_adapter.h"
#include "services/finetuner/objectives.h"
#include "services/finetuner/tiny_model.h"

namespace onegrid::finetuner {
namespace {

constexpr int64_t kTokens = 96;
// What differs between the two ways is the order of sums: matrix products have
// other shapes. A value passes through 17 products (8 in each of 2 layers, and
// the head) of up to 96 terms, and through twice as many on the way back. Each
// term rounds by at most 2^-24 of the sum, with either sign, so that the errors
// add like a random walk; four of its standard deviations are allowed.
const double kTolerance = 4 * std::sqrt(3.0 * 17 * 96) * 0x1p-24;

// Conversations: some tokens to read, then an answer, two to four times.
std::vector<TokenizedExample> MakeConversations(int count) {
  std::vector<TokenizedExample> examples;
  for (int i = 0; i < count; ++i) {
    TokenizedExample example;
    for (int turn = 0; turn < 2 + i % 3; ++turn) {
      for (int j = 0; j < 3 + (i + turn) % 3; ++j) {
        example.tokens.push_back((31 * i + 17 * turn + 7 * j) % kTinyVocab);
      }
      const auto begin = static_cast<int64_t>(example.tokens.size());
      for (int j = 0; j < 2 + (i * turn) % 3; ++j) {
        example.tokens.push_back((13 * i + 29 * turn + 5 * j) % kTinyVocab);
      }
      example.labels.push_back(
          {begin, static_cast<int64_t>(example.tokens.size())});
    }
    examples.push_back(example);
  }
  return examples;
}

class PackedTrainingTest : public testing::Test {
 protected:
  struct Result {
    double loss = 0;
    at::Tensor gradient;
  };

  PackedTrainingTest()
      : checkpoint_(MakeTinyCheckpoint(1)),
        model_(MakeSharedWeights(checkpoint_, kTokens), checkpoint_.linears,
               at::kFloat),
        examples_(MakeConversations(5)) {
    at::set_num_threads(1);
    LoraOptions lora;
    lora.rank = 4;
    lora.alpha = 8;
    lora.use_rslora = true;
    lora.patterns = {{"v_proj", 2, 0}, {"mlp.*", 6, 5}};
    adapter_ = *LoraAdapter::Create(checkpoint_.specs, lora, 3);
    // Not at::randn, whose numbers depend on the processor, as would the size
    // of what the tests below want to be seen.
    std::mt19937_64 random(4);
    std::normal_distribution<float> normal(0, 0.1f);
    const at::Tensor parameters = adapter_->parameters();
    auto* values = parameters.data_ptr<float>();
    for (int64_t i = 0; i < parameters.numel(); ++i) {
      values[i] += normal(random);
    }
  }

  // Sum of the losses of a sequence, and its gradient.
  Result Train(const PackedSequence& sequence) {
    AdapterTunable tunable(model_, &*adapter_, {});
    tunable.Refresh();
    at::Tensor gradients = adapter_->gradients();
    gradients.zero_();
    const double loss =
        tunable.AddGradients(sequence, 1, nullptr).cross_entropy;
    return {loss, gradients.clone()};
  }

  Result TrainEachAlone() {
    Result sum{0, at::zeros_like(adapter_->parameters())};
    for (const TokenizedExample& example : examples_) {
      PackedSequence alone;
      AppendSegment(example, 0, kTokens, &alone);
      const Result result = Train(alone);
      sum.loss += result.loss;
      sum.gradient += result.gradient;
    }
    return sum;
  }

  PackedSequence PackAll() const {
    PackedSequence packed;
    for (size_t i = 0; i < examples_.size(); ++i) {
      AppendSegment(examples_[i], static_cast<int64_t>(i), kTokens, &packed);
    }
    return packed;
  }

  // Relative differences of the loss and of the gradient.
  static double LossError(const Result& a, const Result& b) {
    return std::fabs(a.loss - b.loss) / std::fabs(b.loss);
  }
  static double GradientError(const Result& a, const Result& b) {
    return (a.gradient - b.gradient).norm().item<double>() /
           b.gradient.norm().item<double>();
  }

  const GridCheckpoint checkpoint_;
  const GemmaModel model_;
  const std::vector<TokenizedExample> examples_;
  std::optional<LoraAdapter> adapter_;
};

TEST_F(PackedTrainingTest, PackedConversationsTrainAsEachAlone) {
  const PackedSequence packed = PackAll();
  ASSERT_EQ(packed.segments(), 5);
  ASSERT_GT(packed.label_count(), 30);
  const Result together = Train(packed);
  const Result alone = TrainEachAlone();
  EXPECT_LT(LossError(together, alone), kTolerance);
  EXPECT_LT(GradientError(together, alone), kTolerance);
}

TEST_F(PackedTrainingTest, ALeakBetweenSegmentsWouldBeSeen) {
  // The same tokens and labels with one boundary missing: the second
  // conversation sees the first, and its positions go on from there.
  PackedSequence leaking = PackAll();
  leaking.segment_starts.erase(leaking.segment_starts.begin() + 1);
  leaking.examples.pop_back();
  const Result together = Train(leaking);
  const Result alone = TrainEachAlone();
  EXPECT_GT(LossError(together, alone), 20 * kTolerance);
  EXPECT_GT(GradientError(together, alone), 100 * kTolerance);
}

TEST_F(PackedTrainingTest, ALabelTooManyWouldBeSeen) {
  PackedSequence packed = PackAll();
  packed.targets[0] = packed.tokens[1];  // Of a user's turn.
  const Result more = Train(packed);
  EXPECT_GT(LossError(more, TrainEachAlone()), 100 * kTolerance);
}

}  // namespace
}  // namespace onegrid::finetuner
