#include "services/inference/experts.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/elementwise.h"
#include "kernels/reference/expert_choice.h"

namespace onegrid::inference {

Experts::Experts(const model::GemmaConfig& config, const Numerics& numerics,
                 int64_t max_rows, kernels::ThreadPool& pool)
    : config_(config),
      numerics_(numerics),
      pool_(pool),
      input_(numerics, pool),
      uses_(config.experts) {
  const auto floats = [max_rows](int64_t width) {
    return kernels::AlignedBuffer<float>(static_cast<size_t>(max_rows * width),
                                         kernels::Lifetime::kLong);
  };
  normed_ = floats(config.hidden);
  rows_ = floats(config.hidden);
  gate_up_ = floats(2 * config.expert_ff);
  active_ = floats(config.expert_ff);
  out_ = floats(config.hidden);
  sum_ = floats(config.hidden);
}

void Experts::Route(const ExpertWeights& weights, const float* x,
                    int64_t rows) {
  const int64_t hidden = config_.hidden;
  cpu::RmsNorm(x, weights.router_norm.data(), rows, hidden,
               static_cast<float>(config_.rms_eps), normed_.data(), pool_,
               numerics_.isa);
  std::vector<std::vector<reference::ExpertChoice>> choices(rows);
  pool_.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const auto token = absl::MakeConstSpan(normed_.data() + row * hidden,
                                             static_cast<size_t>(hidden));
      choices[row] = reference::ChooseExperts(
          reference::RouterLogits(token, weights.router), config_.experts_used,
          weights.expert_scale);
    }
  });
  for (auto& uses : uses_) uses.clear();
  for (int64_t row = 0; row < rows; ++row) {
    for (const reference::ExpertChoice& choice : choices[row]) {
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
