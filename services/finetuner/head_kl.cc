#include "services/finetuner/head_kl.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "services/finetuner/head_loss.h"
#include "services/finetuner/row_ops.h"

namespace onegrid::finetuner {
namespace {

// Positions and tokens of the block of logits that is held at once: the head is
// read once for many positions, and the products are large both ways.
constexpr int64_t kPositions = 512;
constexpr int64_t kTokens = 8192;

// Sum of p * (t - s), p the teacher's probabilities, in independent lanes.
double WeightedDifference(const float* p, const float* t, const float* s,
                          int64_t n) {
  constexpr int64_t kLanes = 8;
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) {
      sums[l] += static_cast<double>(p[i + l]) *
                 static_cast<double>(t[i + l] - s[i + l]);
    }
  }
  double sum = 0;
  for (; i < n; ++i) {
    sum += static_cast<double>(p[i]) * static_cast<double>(t[i] - s[i]);
  }
  for (const double lane : sums) sum += lane;
  return sum;
}

// What one block of tokens says about one position.
struct BlockSums {
  double teacher = 0;  // log of the sum of e^logit
  double student = 0;
  double difference = 0;  // Mean of teacher - student logit, by the teacher.
};

BlockSums SumBlock(const float* teacher, const float* student, int64_t n,
                   std::vector<float>* scratch) {
  const float teacher_sum = LogSumExpRow(teacher, n);
  scratch->assign(teacher, teacher + n);
  ExpMinusRow(teacher_sum, n, scratch->data());
  return {teacher_sum, LogSumExpRow(student, n),
          WeightedDifference(scratch->data(), teacher, student, n)};
}

double LogSumExp(const BlockSums* blocks, int64_t n,
                 double BlockSums::* member) {
  double top = blocks[0].*member;
  for (int64_t i = 1; i < n; ++i) top = std::max(top, blocks[i].*member);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(blocks[i].*member - top);
  return top + std::log(sum);
}

// All blocks of one position.
HeadComparison JoinBlocks(const BlockSums* blocks, int64_t n) {
  HeadComparison result;
  result.teacher_nats = LogSumExp(blocks, n, &BlockSums::teacher);
  result.student_nats = LogSumExp(blocks, n, &BlockSums::student);
  result.kl = result.student_nats - result.teacher_nats;
  for (int64_t i = 0; i < n; ++i) {
    result.kl += std::exp(blocks[i].teacher - result.teacher_nats) *
                 blocks[i].difference;
  }
  return result;
}

// Positions [start, start + rows), without targets: nats are the logarithms of
// the sums.
std::vector<HeadComparison> CompareRows(const HeadInput& teacher,
                                        const HeadInput& student, int64_t start,
                                        int64_t rows) {
  const int64_t vocab = teacher.head.size(0);
  const int64_t blocks = (vocab + kTokens - 1) / kTokens;
  std::vector<BlockSums> sums(static_cast<size_t>(rows * blocks));
  const at::Tensor t_hidden = teacher.hidden.narrow(0, start, rows);
  const at::Tensor s_hidden = student.hidden.narrow(0, start, rows);
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = block * kTokens;
    const int64_t n = std::min(kTokens, vocab - first);
    const at::Tensor t =
        LogitsOf(t_hidden, teacher.head.narrow(0, first, n), teacher.softcap);
    const at::Tensor s =
        LogitsOf(s_hidden, student.head.narrow(0, first, n), student.softcap);
    const float* t_data = t.const_data_ptr<float>();
    const float* s_data = s.const_data_ptr<float>();
    at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> scratch;
      for (int64_t r = begin; r < end; ++r) {
        sums[static_cast<size_t>(r * blocks + block)] =
            SumBlock(t_data + r * n, s_data + r * n, n, &scratch);
      }
    });
  }
  std::vector<HeadComparison> result;
  for (int64_t r = 0; r < rows; ++r) {
    result.push_back(JoinBlocks(sums.data() + r * blocks, blocks));
  }
  return result;
}

// The logits of the targets, [P].
at::Tensor TargetLogits(const HeadInput& input,
                        absl::Span<const int32_t> targets) {
  const at::Tensor ids = at::tensor(
      at::ArrayRef<int32_t>(targets.data(), targets.size()), at::kInt);
  at::Tensor logits = (input.hidden * input.head.index_select(0, ids)).sum(1);
  if (input.softcap > 0) logits.div_(input.softcap).tanh_().mul_(input.softcap);
  return logits;
}

}  // namespace

HeadComparison CompareHeads(const HeadInput& teacher, const HeadInput& student,
                            absl::Span<const int32_t> targets) {
  const c10::NoGradGuard no_grad;
  const int64_t positions = teacher.hidden.size(0);
  HeadComparison sums;
  for (int64_t start = 0; start < positions; start += kPositions) {
    for (const HeadComparison& row :
         CompareRows(teacher, student, start,
                     std::min(kPositions, positions - start))) {
      sums.kl += row.kl;
      sums.teacher_nats += row.teacher_nats;
      sums.student_nats += row.student_nats;
    }
  }
  if (targets.empty()) return {sums.kl, 0, 0};
  sums.teacher_nats -=
      TargetLogits(teacher, targets).sum(at::kDouble).item<double>();
  sums.student_nats -=
      TargetLogits(student, targets).sum(at::kDouble).item<double>();
  return sums;
}

double MeanKl(const HeadInput& teacher, const HeadInput& student) {
  return CompareHeads(teacher, student, {}).kl /
         static_cast<double>(teacher.hidden.size(0));
}

}  // namespace onegrid::finetuner
