#include "services/finetuner/head_loss.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "services/finetuner/row_ops.h"

namespace onegrid::finetuner {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Turns the logits of a chunk into d loss / d logits = softmax - one-hot, in
// place, and returns the loss.
double LossAndGradient(const at::Tensor& logits, const int32_t* targets) {
  const int64_t rows = logits.size(0), vocab = logits.size(1);
  float* data = logits.mutable_data_ptr<float>();
  std::vector<double> losses(rows);
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = data + r * vocab;
      const float target = row[targets[r]];
      const float logsumexp = LogSumExpRow(row, vocab);
      losses[r] = static_cast<double>(logsumexp) - target;
      ExpMinusRow(logsumexp, vocab, row);
      row[targets[r]] -= 1.0f;
    }
  });
  double sum = 0;
  for (const double loss : losses) sum += loss;
  return sum;
}

class HeadLossFunction : public Function<HeadLossFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden,
                            const Head* head, const int32_t* targets,
                            int64_t chunk) {
    const int64_t count = hidden.size(0);
    at::Tensor d_hidden = at::empty(hidden.sizes(), hidden.options());
    double sum = 0;
    for (int64_t start = 0; start < count; start += chunk) {
      const int64_t rows = std::min(chunk, count - start);
      const at::Tensor logits =
          at::mm(hidden.narrow(0, start, rows), head->weight.t());
      sum += LossAndGradient(logits, targets + start);
      d_hidden.narrow(0, start, rows)
          .copy_(at::mm(logits.to(head->compute_weight.scalar_type()),
                        head->compute_weight));
    }
    ctx->save_for_backward({d_hidden});
    return at::scalar_tensor(sum, at::kDouble);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {ctx->get_saved_variables()[0] * grads[0].item<double>(),
            at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor HeadLossSum(const at::Tensor& hidden, const Head& head,
                       absl::Span<const int32_t> targets, int64_t chunk) {
  return HeadLossFunction::apply(hidden, &head, targets.data(), chunk);
}

HeadScores ScoreTargets(const at::Tensor& hidden, const at::Tensor& weight,
                        absl::Span<const int32_t> targets) {
  const c10::NoGradGuard no_grad;
  const int64_t count = hidden.size(0), vocab = weight.size(0);
  HeadScores scores;
  scores.target_logprobs.resize(count);
  scores.argmax.resize(count);
  for (int64_t start = 0; start < count; start += kHeadChunk) {
    const int64_t rows = std::min(kHeadChunk, count - start);
    const at::Tensor logits = at::mm(hidden.narrow(0, start, rows), weight.t());
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

TopLogprobs ScoreTop(const at::Tensor& hidden, const at::Tensor& weight,
                     int64_t k) {
  const c10::NoGradGuard no_grad;
  const int64_t count = hidden.size(0), vocab = weight.size(0);
  TopLogprobs top{at::empty({count, k}, at::kInt),
                  at::empty({count, k}, at::kFloat)};
  int32_t* ids = top.ids.mutable_data_ptr<int32_t>();
  float* logprobs = top.logprobs.mutable_data_ptr<float>();
  for (int64_t start = 0; start < count; start += kHeadChunk) {
    const int64_t rows = std::min(kHeadChunk, count - start);
    const at::Tensor logits = at::mm(hidden.narrow(0, start, rows), weight.t());
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
          ids[(start + r) * k + i] = order[i];
          logprobs[(start + r) * k + i] = row[order[i]] - logsumexp;
        }
      }
    });
  }
  return top;
}

}  // namespace onegrid::finetuner
