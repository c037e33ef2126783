#include "services/finetuner/head_kl.h"

#include <ATen/Parallel.h>

#include <vector>

#include "gtest/gtest.h"

namespace onegrid::finetuner {
namespace {

// Two chunks of positions and two blocks of tokens, the last ones short and no
// multiple of the lanes, and models of different widths.
TEST(HeadKlTest, EqualsSoftmaxInDouble) {
  at::set_num_threads(1);
  at::manual_seed(1);
  constexpr int kPositions = 515, kVocab = 8203;
  const HeadInput teacher = {at::randn({kPositions, 12}),
                             at::randn({kVocab, 12})};
  const HeadInput student = {at::randn({kPositions, 8}),
                             at::randn({kVocab, 8})};
  std::vector<int32_t> targets;
  for (int i = 0; i < kPositions; ++i) targets.push_back(i * 501 % kVocab);
  const auto logprobs = [](const HeadInput& input) {
    return at::log_softmax(
        at::mm(input.hidden.to(at::kDouble), input.head.t().to(at::kDouble)),
        1);
  };
  const at::Tensor t = logprobs(teacher), s = logprobs(student);
  const at::Tensor index = at::tensor(targets, at::kLong).unsqueeze(1);
  const HeadComparison sums = CompareHeads(teacher, student, targets);
  // Exact to 1e-6 a position.
  const double bound = 1e-6 * kPositions;
  EXPECT_NEAR(sums.kl, (t.exp() * (t - s)).sum().item<double>(), bound);
  EXPECT_NEAR(sums.teacher_nats, -t.gather(1, index).sum().item<double>(),
              bound);
  EXPECT_NEAR(sums.student_nats, -s.gather(1, index).sum().item<double>(),
              bound);
  EXPECT_NEAR(MeanKl(teacher, student), sums.kl / kPositions, 1e-12);
}

TEST(HeadKlTest, ModelsThatDifferByAConstantAgree) {
  at::manual_seed(2);
  const at::Tensor hidden = at::cat({at::randn({5, 6}), at::ones({5, 1})}, 1);
  const at::Tensor head = at::randn({50, 7});
  at::Tensor shifted = head.clone();
  shifted.select(1, 6).add_(3.0);
  EXPECT_NEAR(MeanKl({hidden, head}, {hidden, shifted}), 0, 1e-6);
  EXPECT_GT(MeanKl({hidden, head}, {hidden, 2 * head}), 0.1);
}

}  // namespace
}  // namespace onegrid::finetuner
