// Losses over a part of the vocabulary, on a tiny random model.
#include "services/finetuner/loss_vocabulary.h"

#include <ATen/Parallel.h>

#include <vector>

#include "gtest/gtest.h"
#include "services/finetuner/grid_parameters.h"
#include "services/finetuner/objectives.h"
#include "services/finetuner/teacher.h"
#include "services/finetuner/tiny_model.h"

namespace onegrid::finetuner {
namespace {

constexpr int64_t kTokens = 64;

class LossVocabularyTest : public testing::Test {
 protected:
  LossVocabularyTest()
      : checkpoint_(MakeTinyCheckpoint(1)),
        teacher_checkpoint_(MakeTinyCheckpoint(2)),
        shared_(MakeSharedWeights(checkpoint_, kTokens)),
        model_(shared_, checkpoint_.linears, at::kFloat),
        teacher_model_(MakeSharedWeights(teacher_checkpoint_, kTokens),
                       teacher_checkpoint_.linears, at::kFloat),
        teacher_(MakeModelTeacher(teacher_model_, nullptr)),
        examples_(MakeTinyExamples(12, 20, 2)),
        sequence_(Pack(examples_, ShuffledOrder(12, 1), kTokens)[0]) {
    at::set_num_threads(1);
  }

  // The losses of the sequence, and the gradients of the scales.
  LossSums Run(const LossVocabulary* vocabulary, at::Tensor* gradients) {
    auto parameters = GridParameters::Create(checkpoint_.linears, {}, {});
    EXPECT_TRUE(parameters.ok()) << parameters.status();
    Objective objective;
    objective.weights = {0.5, 2.0};
    objective.teacher = teacher_.get();
    objective.vocabulary = vocabulary;
    GridTunable tunable(&model_, &*parameters, objective);
    tunable.Refresh();
    const LossSums sums = tunable.AddGradients(sequence_, 1, nullptr);
    *gradients = tunable.gradients().clone();
    return sums;
  }

  // Mean cross-entropy and divergence over the tokens `ids` by LibTorch.
  LossSums Expected(const at::Tensor& ids) {
    const AttentionLayout layout = MakeAttentionLayout(sequence_);
    const Labels labels = LabelsOf(sequence_);
    const auto log_p = [&](const GemmaModel& model) {
      const at::Tensor hidden =
          model.FinalHidden(model.Forward(sequence_, layout, {}), labels.rows);
      return at::log_softmax(
          at::mm(hidden, model.head().weight.index_select(0, ids).t())
              .to(at::kDouble),
          1);
    };
    const at::Tensor student = log_p(model_), teacher = log_p(teacher_model_);
    LossSums sums;
    sums.kl = (teacher.exp() * (teacher - student)).sum().item<double>();
    for (size_t i = 0; i < labels.targets.size(); ++i) {
      const at::Tensor at = (ids == labels.targets[i]).nonzero();
      sums.cross_entropy -=
          student[static_cast<int64_t>(i)][at.item<int64_t>()].item<double>();
    }
    return sums;
  }

  const GridCheckpoint checkpoint_, teacher_checkpoint_;
  const std::shared_ptr<const SharedWeights> shared_;
  GemmaModel model_;
  const GemmaModel teacher_model_;
  const std::unique_ptr<Teacher> teacher_;
  const std::vector<TokenizedExample> examples_;
  const PackedSequence sequence_;
};

TEST_F(LossVocabularyTest, TheWholeVocabularyGivesTheWholeLoss) {
  const LossVocabulary whole(at::arange(kTinyVocab, at::kLong),
                             shared_->embedding, teacher_model_.head().weight,
                             at::kFloat);
  at::Tensor with, without;
  const LossSums a = Run(&whole, &with), b = Run(nullptr, &without);
  EXPECT_EQ(a.cross_entropy, b.cross_entropy);
  EXPECT_EQ(a.kl, b.kl);
  EXPECT_TRUE(at::equal(with, without));
}

TEST_F(LossVocabularyTest, APartIsRenormalised) {
  const auto part = ChooseLossVocabulary(
      teacher_model_, shared_->embedding, examples_, /*top=*/3,
      /*sample_labels=*/20, /*seed=*/1, [](int64_t, int64_t) { return true; });
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_LT(part->size(), kTinyVocab);
  // Which tokens they are, from their rows.
  std::vector<int64_t> ids;
  for (int64_t i = 0, token = 0; i < part->size(); ++token) {
    ASSERT_LT(token, kTinyVocab);
    if (!at::equal(part->student().weight[i], shared_->embedding[token])) {
      continue;
    }
    ids.push_back(token);
    ++i;
  }
  const LossSums want = Expected(at::tensor(ids, at::kLong));
  at::Tensor gradients;
  const LossSums got = Run(&*part, &gradients);
  // Float32 logits of size 10 are off by 1e-6 a label, of which there are 10.
  EXPECT_NEAR(got.cross_entropy, want.cross_entropy, 1e-4);
  EXPECT_NEAR(got.kl, want.kl, 1e-4);
  at::Tensor whole_gradients;
  const LossSums whole = Run(nullptr, &whole_gradients);
  EXPECT_LT(got.cross_entropy, whole.cross_entropy - 0.01);
}

TEST_F(LossVocabularyTest, EveryLabelIsInside) {
  const auto part = ChooseLossVocabulary(
      teacher_model_, shared_->embedding, examples_, /*top=*/1,
      /*sample_labels=*/1, /*seed=*/1, [](int64_t, int64_t) { return true; });
  ASSERT_TRUE(part.ok());
  for (const TokenizedExample& example : examples_) {
    for (const TokenSpan& span : example.labels) {
      for (int64_t i = span.begin; i < span.end; ++i) {
        const int32_t token = example.tokens[static_cast<size_t>(i)];
        const int32_t local = part->Local({&token, 1})[0];
        EXPECT_TRUE(at::equal(part->teacher().weight[local],
                              teacher_model_.head().weight[token]));
      }
    }
  }
}

TEST_F(LossVocabularyTest, CanBeCancelled) {
  const auto part =
      ChooseLossVocabulary(teacher_model_, shared_->embedding, examples_, 3, 20,
                           1, [](int64_t, int64_t) { return false; });
  EXPECT_EQ(part.status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace onegrid::finetuner
