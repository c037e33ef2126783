#include "services/inference/experts.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/cpu/elementwise.h"

namespace onegrid::inference {
namespace {

// In 16 parts, like every sum over a row that is served: the compiler may use
// vectors of any width and the bits stay the same.
float Dot(const float* a, const float* b, int64_t n) {
  constexpr int64_t kParts = 16;
  float parts[kParts] = {};
  int64_t i = 0;
  for (; i + kParts <= n; i += kParts) {
    for (int64_t p = 0; p < kParts; ++p) parts[p] += a[i + p] * b[i + p];
  }
  for (; i < n; ++i) parts[i % kParts] += a[i] * b[i];
  float sum = 0;
  for (const float part : parts) sum += part;
  return sum;
}

}  // namespace

std::vector<ExpertChoice> ChooseExperts(absl::Span<const float> logits,
                                        int64_t used,
                                        absl::Span<const float> scales) {
  std::vector<int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + used, order.end(),
                    [&](int64_t a, int64_t b) {
                      return logits[a] != logits[b] ? logits[a] > logits[b]
                                                    : a < b;
                    });
  const float max = logits[order[0]];
  float all = 0;
  for (const float logit : logits) all += std::exp(logit - max);
  float chosen = 0;
  for (int64_t i = 0; i < used; ++i) {
    chosen += std::exp(logits[order[i]] - max) / all;
  }
  std::sort(order.begin(), order.begin() + used);
  std::vector<ExpertChoice> choices;
  for (int64_t i = 0; i < used; ++i) {
    const float probability = std::exp(logits[order[i]] - max) / all;
    choices.push_back({order[i], probability / chosen * scales[order[i]]});
  }
  return choices;
}

Experts::Experts(const model::GemmaConfig& config, const Numerics& numerics,
                 int64_t max_rows, kernels::ThreadPool& pool)
    : config_(config),
      numerics_(numerics),
      pool_(pool),
      input_(numerics, pool),
      uses_(config.experts),
      router_norm_(config.hidden) {
  const auto floats = [max_rows](int64_t width) {
    return kernels::AlignedBuffer<float>(
        static_cast<size_t>(max_rows * width));
  };
  normed_ = floats(config.hidden);
  logits_ = floats(config.experts);
  rows_ = floats(config.hidden);
  gate_up_ = floats(2 * config.expert_ff);
  active_ = floats(config.expert_ff);
  out_ = floats(config.hidden);
  sum_ = floats(config.hidden);
}

void Experts::Route(const ExpertWeights& weights, const float* x,
                    int64_t rows) {
  const int64_t hidden = config_.hidden, experts = config_.experts;
  const float root = 1.0f / std::sqrt(static_cast<float>(hidden));
  for (int64_t i = 0; i < hidden; ++i) {
    router_norm_[i] = weights.router_scale[i] * root;
  }
  cpu::RmsNorm(x, router_norm_.data(), rows, hidden,
               static_cast<float>(config_.rms_eps), normed_.data(), pool_,
               numerics_.isa);
  pool_.ParallelFor(
      rows * experts, std::max<int64_t>(16, pool_.GrainFor(rows * experts)),
      [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          logits_.data()[i] =
              Dot(normed_.data() + i / experts * hidden,
                  weights.router.data() + i % experts * hidden, hidden);
        }
      });
  for (auto& uses : uses_) uses.clear();
  for (int64_t row = 0; row < rows; ++row) {
    const auto logits = absl::MakeConstSpan(
        logits_.data() + row * experts, static_cast<size_t>(experts));
    for (const ExpertChoice& choice : ChooseExperts(
             logits, config_.experts_used, weights.expert_scale)) {
      uses_[choice.expert].push_back({row, choice.weight});
    }
  }
}

void Experts::Run(const ExpertWeights& weights, int64_t expert) {
  const int64_t hidden = config_.hidden, ff = config_.expert_ff;
  const std::vector<Use>& uses = uses_[expert];
  const auto count = static_cast<int64_t>(uses.size());
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(rows_.data() + i * hidden,
                normed_.data() + uses[i].row * hidden, hidden * sizeof(float));
  }
  input_.Set(rows_.data(), count, hidden, cpu::CodeBits::k8);
  input_.Multiply(weights.gate_up[expert], gate_up_.data());
  for (int64_t i = 0; i < count; ++i) {
    const float* gate = gate_up_.data() + i * 2 * ff;
    cpu::GeluMul(gate, gate + ff, ff, active_.data() + i * ff, pool_,
                 numerics_.isa);
  }
  input_.Set(active_.data(), count, ff, cpu::CodeBits::k8);
  input_.Multiply(weights.down[expert], out_.data());
  for (int64_t i = 0; i < count; ++i) {
    const float* from = out_.data() + i * hidden;
    float* to = sum_.data() + uses[i].row * hidden;
    for (int64_t j = 0; j < hidden; ++j) to[j] += from[j] * uses[i].weight;
  }
}

void Experts::AddTo(const ExpertWeights& weights, const float* x, int64_t rows,
                    float* branch) {
  const float eps = static_cast<float>(config_.rms_eps);
  Route(weights, x, rows);
  cpu::RmsNorm(x, weights.norm.data(), rows, config_.hidden, eps,
               normed_.data(), pool_, numerics_.isa);
  std::fill_n(sum_.data(), rows * config_.hidden, 0.0f);
  for (int64_t expert = 0; expert < config_.experts; ++expert) {
    if (!uses_[expert].empty()) Run(weights, expert);
  }
  cpu::RmsNormAdd(sum_.data(), weights.post_norm.data(), rows, config_.hidden,
                  eps, branch, pool_, numerics_.isa);
}

}  // namespace onegrid::inference
