#include "services/finetuner/head_loss.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "services/finetuner/row_ops.h"

namespace onegrid::finetuner {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Turns the logits of one position into weights.cross_entropy * (p - one-hot),
// in place, and returns the cross-entropy.
double CrossEntropyRow(const LossWeights& weights, int32_t target,
                       int64_t vocab, float* row) {
  const float target_logit = row[target];
  const float logsumexp = LogSumExpRow(row, vocab);
  ExpMinusRow(logsumexp, vocab, row);
  const auto weight = static_cast<float>(weights.cross_entropy);
  if (weight != 1.0f) {
    for (int64_t i = 0; i < vocab; ++i) row[i] *= weight;
  }
  row[target] -= weight;
  return static_cast<double>(logsumexp) - target_logit;
}

// The same with a teacher's logits: the gradient of both losses.
LossSums DistillRow(const LossWeights& weights, const float* teacher,
                    int32_t target, int64_t vocab, float* row) {
  const float target_logit = row[target];
  const float logsumexp = LogSumExpRow(row, vocab);
  const double kl =
      DistillGradRow(teacher, LogSumExpRow(teacher, vocab), logsumexp,
                     static_cast<float>(weights.cross_entropy + weights.kl),
                     static_cast<float>(weights.kl), vocab, row);
  row[target] -= static_cast<float>(weights.cross_entropy);
  return {static_cast<double>(logsumexp) - target_logit, kl};
}

// The same with the teacher's k most likely tokens; all others count as one.
LossSums DistillTopRow(const LossWeights& weights, const int32_t* ids,
                       const float* logprobs, int64_t k, int32_t target,
                       int64_t vocab, float* row) {
  LossSums sums;
  const float target_logit = row[target];
  const float logsumexp = LogSumExpRow(row, vocab);
  sums.cross_entropy = static_cast<double>(logsumexp) - target_logit;
  double known = 0, model_known = 0;
  std::vector<double> q(k);
  for (int64_t j = 0; j < k; ++j) {
    q[j] = std::exp(double{logprobs[j]});
    const double log_p = double{row[ids[j]]} - logsumexp;
    known += q[j];
    model_known += std::exp(log_p);
    sums.kl += q[j] * (logprobs[j] - log_p);
  }
  const double rest = std::max(0.0, 1.0 - known);
  const double model_rest = std::max(1e-12, 1.0 - model_known);
  if (rest > 0) sums.kl += rest * std::log(rest / model_rest);
  // d KL / d logit = p - q for a known token, p (1 - rest / model_rest) for the
  // others.
  std::vector<float> known_p(k);
  for (int64_t j = 0; j < k; ++j) {
    known_p[j] = std::exp(row[ids[j]] - logsumexp);
  }
  ExpMinusRow(logsumexp, vocab, row);
  const auto others = static_cast<float>(
      weights.cross_entropy + weights.kl * (1.0 - rest / model_rest));
  for (int64_t i = 0; i < vocab; ++i) row[i] *= others;
  for (int64_t j = 0; j < k; ++j) {
    row[ids[j]] = static_cast<float>(
        (weights.cross_entropy + weights.kl) * known_p[j] - weights.kl * q[j]);
  }
  row[target] -= static_cast<float>(weights.cross_entropy);
  return sums;
}

// One call of HeadLoss.
struct HeadLossCall {
  const Head* head;
  const int32_t* targets;
  LossWeights weights;
  const HeadTeacher* teacher;
  LossSums* sums;
  int64_t chunk;

  // Turns logits of positions start.. into d loss / d logits, in place, and
  // returns the weighted loss.
  double LossAndGradient(int64_t start, const at::Tensor& logits) const;
};

double HeadLossCall::LossAndGradient(int64_t start,
                                     const at::Tensor& logits) const {
  const int64_t rows = logits.size(0), vocab = logits.size(1);
  float* data = logits.mutable_data_ptr<float>();
  at::Tensor teacher_logits;
  const bool distills = teacher != nullptr && weights.kl > 0;
  if (distills && teacher->hidden.defined()) {
    teacher_logits = LogitsOf(teacher->hidden.narrow(0, start, rows),
                              teacher->head->weight, teacher->head->softcap);
  }
  std::vector<LossSums> each(rows);
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = data + r * vocab;
      const int32_t target = targets[start + r];
      if (!distills) {
        each[r].cross_entropy = CrossEntropyRow(weights, target, vocab, row);
      } else if (teacher_logits.defined()) {
        each[r] = DistillRow(weights,
                             teacher_logits.const_data_ptr<float>() + r * vocab,
                             target, vocab, row);
      } else {
        const int64_t k = teacher->top.ids.size(1), at = (start + r) * k;
        each[r] = DistillTopRow(
            weights, teacher->top.ids.const_data_ptr<int32_t>() + at,
            teacher->top.logprobs.const_data_ptr<float>() + at, k, target,
            vocab, row);
      }
    }
  });
  double loss = 0;
  for (const LossSums& one : each) {
    sums->cross_entropy += one.cross_entropy;
    sums->kl += one.kl;
    loss += weights.cross_entropy * one.cross_entropy + weights.kl * one.kl;
  }
  return loss;
}

class HeadLossFunction : public Function<HeadLossFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden,
                            const HeadLossCall* call) {
    const Head& head = *call->head;
    const int64_t count = hidden.size(0);
    at::Tensor d_hidden = at::empty(hidden.sizes(), hidden.options());
    double sum = 0;
    for (int64_t start = 0; start < count; start += call->chunk) {
      const int64_t rows = std::min(call->chunk, count - start);
      const at::Tensor logits =
          LogitsOf(hidden.narrow(0, start, rows), head.weight, head.softcap);
      // d capped / d logit = 1 - (capped / softcap)^2.
      const at::Tensor slope = head.softcap > 0
                                   ? 1 - (logits / head.softcap).square_()
                                   : at::Tensor();
      sum += call->LossAndGradient(start, logits);
      if (slope.defined()) logits.mul_(slope);
      d_hidden.narrow(0, start, rows)
          .copy_(at::mm(logits.to(head.compute_weight.scalar_type()),
                        head.compute_weight));
    }
    ctx->save_for_backward({d_hidden});
    return at::scalar_tensor(sum, at::kDouble);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {ctx->get_saved_variables()[0] * grads[0].item<double>(),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor LogitsOf(const at::Tensor& hidden, const at::Tensor& weight,
                    double softcap) {
  at::Tensor logits = at::mm(hidden, weight.t());
  if (softcap > 0) logits.div_(softcap).tanh_().mul_(softcap);
  return logits;
}

at::Tensor HeadLoss(const at::Tensor& hidden, const Head& head,
                    absl::Span<const int32_t> targets,
                    const LossWeights& weights, const HeadTeacher* teacher,
                    LossSums* sums, int64_t chunk) {
  const HeadLossCall call{&head, targets.data(), weights, teacher, sums, chunk};
  return HeadLossFunction::apply(hidden, &call);
}

at::Tensor HeadLossSum(const at::Tensor& hidden, const Head& head,
                       absl::Span<const int32_t> targets, int64_t chunk) {
  LossSums sums;
  return HeadLoss(hidden, head, targets, {}, nullptr, &sums, chunk);
}

HeadScores ScoreTargets(const at::Tensor& hidden, const Head& head,
                        absl::Span<const int32_t> targets) {
  const c10::NoGradGuard no_grad;
  const int64_t count = hidden.size(0), vocab = head.weight.size(0);
  HeadScores scores;
  scores.target_logprobs.resize(count);
  scores.argmax.resize(count);
  for (int64_t start = 0; start < count; start += kHeadChunk) {
    const int64_t rows = std::min(kHeadChunk, count - start);
    const at::Tensor logits =
        LogitsOf(hidden.narrow(0, start, rows), head.weight, head.softcap);
    const float* data = logits.const_data_ptr<float>();
    at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const float* row = data + r * vocab;
        const int64_t i = start + r;
        scores.target_logprobs[i] = row[targets[i]] - LogSumExpRow(row, vocab);
        scores.argmax[i] =
            static_cast<int32_t>(std::max_element(row, row + vocab) - row);
      }
    });
  }
  return scores;
}

TopLogprobs TopOfLogits(const at::Tensor& logits, int64_t k) {
  const int64_t rows = logits.size(0), vocab = logits.size(1);
  TopLogprobs top{at::empty({rows, k}, at::kInt),
                  at::empty({rows, k}, at::kFloat)};
  int32_t* ids = top.ids.mutable_data_ptr<int32_t>();
  float* logprobs = top.logprobs.mutable_data_ptr<float>();
  const float* data = logits.const_data_ptr<float>();
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> order(vocab);
    for (int64_t r = begin; r < end; ++r) {
      const float* row = data + r * vocab;
      const float logsumexp = LogSumExpRow(row, vocab);
      for (int64_t i = 0; i < vocab; ++i) order[i] = static_cast<int32_t>(i);
      const auto before = [row](int32_t a, int32_t b) {
        return row[a] > row[b] || (row[a] == row[b] && a < b);
      };
      std::nth_element(order.begin(), order.begin() + k - 1, order.end(),
                       before);
      std::sort(order.begin(), order.begin() + k, before);
      for (int64_t i = 0; i < k; ++i) {
        ids[r * k + i] = order[i];
        logprobs[r * k + i] = row[order[i]] - logsumexp;
      }
    }
  });
  return top;
}

TopLogprobs ScoreTop(const at::Tensor& hidden, const Head& head, int64_t k) {
  const c10::NoGradGuard no_grad;
  const int64_t count = hidden.size(0);
  std::vector<at::Tensor> ids, logprobs;
  for (int64_t start = 0; start < count; start += kHeadChunk) {
    const int64_t rows = std::min(kHeadChunk, count - start);
    const TopLogprobs top = TopOfLogits(
        LogitsOf(hidden.narrow(0, start, rows), head.weight, head.softcap), k);
    ids.push_back(top.ids);
    logprobs.push_back(top.logprobs);
  }
  return {at::cat(ids), at::cat(logprobs)};
}

}  // namespace onegrid::finetuner
