#include "services/finetuner/head_kl.h"

#include <ATen/Parallel.h>

#include <vector>

#include "gtest/gtest.h"

namespace onegrid::finetuner {
namespace {

// 70 positions (three chunks, the last one short), a vocabulary that is not a
// multiple of the lanes, and models of different widths.
TEST(HeadKlTest, EqualsSoftmaxInDouble) {
  at::set_num_threads(1);
  at::manual_seed(1);
  const HeadInput teacher = {at::randn({70, 12}), at::randn({37, 12})};
  const HeadInput student = {at::randn({70, 8}), at::randn({37, 8})};
  std::vector<int32_t> targets;
  for (int i = 0; i < 70; ++i) targets.push_back(i * 5 % 37);
  const auto logprobs = [](const HeadInput& input) {
    return at::log_softmax(
        at::mm(input.hidden.to(at::kDouble), input.head.t().to(at::kDouble)),
        1);
  };
  const at::Tensor t = logprobs(teacher), s = logprobs(student);
  const at::Tensor index = at::tensor(targets, at::kLong).unsqueeze(1);
  const HeadComparison sums = CompareHeads(teacher, student, targets);
  EXPECT_NEAR(sums.kl, (t.exp() * (t - s)).sum().item<double>(), 1e-4);
  EXPECT_NEAR(sums.teacher_nats, -t.gather(1, index).sum().item<double>(),
              1e-4);
  EXPECT_NEAR(sums.student_nats, -s.gather(1, index).sum().item<double>(),
              1e-4);
  EXPECT_NEAR(MeanKl(teacher, student), sums.kl / 70, 1e-12);
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
