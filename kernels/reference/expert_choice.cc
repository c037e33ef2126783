#include "kernels/reference/expert_choice.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/reference/served_ops.h"

namespace onegrid::reference {
namespace {

float Dot(const float* a, const float* b, int64_t n) {
  constexpr int64_t kParts = kServedSumLanes;
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

std::vector<float> RouterNorm(absl::Span<const float> scale) {
  const float root = 1.0f / std::sqrt(static_cast<float>(scale.size()));
  std::vector<float> norm;
  for (const float value : scale) norm.push_back(value * root);
  return norm;
}

std::vector<float> RouterLogits(absl::Span<const float> token,
                                absl::Span<const float> router) {
  const auto hidden = static_cast<int64_t>(token.size());
  std::vector<float> logits;
  for (size_t at = 0; at < router.size(); at += token.size()) {
    logits.push_back(Dot(token.data(), router.data() + at, hidden));
  }
  return logits;
}

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
  for (const float logit : logits) all += ServedExp(logit - max);
  const auto probability = [&](int64_t expert) {
    return ServedExp(logits[expert] - max) / all;
  };
  float chosen = 0;
  for (int64_t i = 0; i < used; ++i) chosen += probability(order[i]);
  std::sort(order.begin(), order.begin() + used);
  std::vector<ExpertChoice> choices;
  for (int64_t i = 0; i < used; ++i) {
    choices.push_back(
        {order[i], probability(order[i]) / chosen * scales[order[i]]});
  }
  return choices;
}

}  // namespace onegrid::reference
