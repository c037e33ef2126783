#include "services/finetuner/head_kl.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <vector>

#include "services/finetuner/row_ops.h"

namespace onegrid::finetuner {
namespace {

// Positions whose logits are held at once.
constexpr int64_t kChunk = 32;

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

HeadComparison CompareRow(const float* teacher, const float* student,
                          int64_t vocab, int32_t target,
                          std::vector<float>* scratch) {
  const float teacher_sum = LogSumExpRow(teacher, vocab);
  const float student_sum = LogSumExpRow(student, vocab);
  scratch->assign(teacher, teacher + vocab);
  ExpMinusRow(teacher_sum, vocab, scratch->data());
  HeadComparison result;
  result.kl = WeightedDifference(scratch->data(), teacher, student, vocab) -
              teacher_sum + student_sum;
  if (target >= 0) {
    result.teacher_nats = static_cast<double>(teacher_sum) - teacher[target];
    result.student_nats = static_cast<double>(student_sum) - student[target];
  }
  return result;
}

}  // namespace

HeadComparison CompareHeads(const HeadInput& teacher, const HeadInput& student,
                            absl::Span<const int32_t> targets) {
  const c10::NoGradGuard no_grad;
  const int64_t positions = teacher.hidden.size(0);
  const int64_t vocab = teacher.head.size(0);
  std::vector<HeadComparison> parts(static_cast<size_t>(positions));
  for (int64_t start = 0; start < positions; start += kChunk) {
    const int64_t rows = std::min(kChunk, positions - start);
    const at::Tensor t =
        at::mm(teacher.hidden.narrow(0, start, rows), teacher.head.t());
    const at::Tensor s =
        at::mm(student.hidden.narrow(0, start, rows), student.head.t());
    const float* t_data = t.const_data_ptr<float>();
    const float* s_data = s.const_data_ptr<float>();
    at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> scratch;
      for (int64_t r = begin; r < end; ++r) {
        const auto i = static_cast<size_t>(start + r);
        parts[i] = CompareRow(t_data + r * vocab, s_data + r * vocab, vocab,
                              targets.empty() ? -1 : targets[i], &scratch);
      }
    });
  }
  HeadComparison sums;
  for (const HeadComparison& part : parts) {
    sums.kl += part.kl;
    sums.teacher_nats += part.teacher_nats;
    sums.student_nats += part.student_nats;
  }
  return sums;
}

double MeanKl(const HeadInput& teacher, const HeadInput& student) {
  return CompareHeads(teacher, student, {}).kl /
         static_cast<double>(teacher.hidden.size(0));
}

}  // namespace onegrid::finetuner
