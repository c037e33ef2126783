#include "services/inference/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "absl/strings/str_cat.h"

namespace onegrid::inference {
namespace {

absl::Status OutOfRange(const char* field, double value, const char* range) {
  return absl::InvalidArgumentError(
      absl::StrCat("sampling.", field, " is ", value, ", expected ", range));
}

// Values at least as large as the returned one number n or a little more.
// Found on a histogram of the distance to the largest, in one pass that moves
// nothing; rows are as long as the vocabulary.
float LowerBoundOfTop(absl::Span<const float> logits, int n, float max_logit) {
  constexpr int kBuckets = 2048;
  constexpr float kWidth = 64.0f / kBuckets;  // covers max-64 .. max
  std::vector<int> counts(kBuckets + 1, 0);
  for (float logit : logits) {
    const float below = (max_logit - logit) * (1.0f / kWidth);
    ++counts[below < kBuckets ? static_cast<int>(below) : kBuckets];
  }
  int sum = 0;
  for (int b = 0; b < kBuckets; ++b) {
    sum += counts[b];
    // One more bucket than counted, so that rounding in the division above
    // can never lose an entry at the edge.
    if (sum >= n) return max_logit - (b + 2) * kWidth;
  }
  return -std::numeric_limits<float>::infinity();
}

}  // namespace

absl::Status ValidateSampler(const SamplerOptions& options) {
  if (!(options.temperature >= 0 && options.temperature <= 10)) {
    return OutOfRange("temperature", options.temperature, "0..10");
  }
  if (options.top_k < 0) return OutOfRange("top_k", options.top_k, ">= 0");
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    return OutOfRange("top_p", options.top_p, "0 < p <= 1");
  }
  if (!(options.min_p >= 0 && options.min_p <= 1)) {
    return OutOfRange("min_p", options.min_p, "0..1");
  }
  if (!(options.repetition_penalty > 0 && options.repetition_penalty <= 10)) {
    return OutOfRange("repetition_penalty", options.repetition_penalty,
                      "0 < p <= 10");
  }
  return absl::OkStatus();
}

Sampler::Sampler(const SamplerOptions& options)
    : options_(options), random_(options.seed) {}

void Sampler::Observe(int32_t token) {
  if (options_.repetition_penalty == 1) return;
  const size_t index = static_cast<size_t>(token);
  if (index >= seen_.size()) seen_.resize(index + 1, false);
  if (seen_[index]) return;
  seen_[index] = true;
  seen_tokens_.push_back(token);
}

void Sampler::ApplyPenalty(absl::Span<float> logits) const {
  const float penalty = options_.repetition_penalty;
  for (int32_t token : seen_tokens_) {
    float& logit = logits[token];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

// 53 random bits, so the same on every standard library.
double Sampler::Uniform() { return (random_() >> 11) * 0x1.0p-53; }

int32_t Sampler::Sample(absl::Span<float> logits) {
  ApplyPenalty(logits);
  const int32_t best = ArgMax(logits);
  if (options_.temperature == 0 || options_.top_k == 1) return best;
  const bool filtered =
      options_.top_k > 0 || options_.top_p < 1 || options_.min_p > 0;
  return filtered ? DrawFromFiltered(logits, logits[best])
                  : DrawFromAll(logits, logits[best]);
}

int32_t Sampler::DrawFromAll(absl::Span<const float> logits, float max_logit) {
  const float scale = 1.0f / options_.temperature;
  std::vector<float> weights(logits.size());
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    weights[i] = std::exp((logits[i] - max_logit) * scale);
    sum += weights[i];
  }
  double left = Uniform() * sum;
  int32_t last = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0) continue;
    last = static_cast<int32_t>(i);
    left -= weights[i];
    if (left < 0) return last;
  }
  return last;
}

int32_t Sampler::DrawFromFiltered(absl::Span<const float> logits,
                                  float max_logit) {
  const float scale = 1.0f / options_.temperature;
  const auto weight = [&](int32_t token) {
    return std::exp(static_cast<double>(logits[token] - max_logit) * scale);
  };
  const int vocab = static_cast<int>(logits.size());
  const int k = options_.top_k > 0 ? std::min(options_.top_k, vocab) : vocab;
  // top_p's mass is a share of what top_k kept.
  double total = 0;
  std::vector<int32_t> kept;
  if (k < vocab) {
    kept = TopN(logits, k);
    for (int32_t token : kept) total += weight(token);
  } else {
    for (int32_t token = 0; token < vocab; ++token) total += weight(token);
    kept = TopN(logits, std::min(vocab, 1024));
  }
  double mass = 0;
  size_t count = 0;
  while (true) {
    for (; count < kept.size(); ++count) {
      const double w = weight(kept[count]);
      const bool enough = count > 0 && mass >= options_.top_p * total;
      // w is 1 for the best token, 0 for one that is not to be chosen.
      if (enough || w < options_.min_p || w == 0) break;
      mass += w;
    }
    const int have = static_cast<int>(kept.size());
    if (count < kept.size() || have >= k) break;
    kept = TopN(logits, static_cast<int>(std::min<int64_t>(k, have * 8LL)));
  }
  double left = Uniform() * mass;
  for (size_t i = 0; i < count; ++i) {
    left -= weight(kept[i]);
    if (left < 0) return kept[i];
  }
  return kept[count - 1];
}

int32_t ArgMax(absl::Span<const float> logits) {
  // Block maxima first: that loop has no index to carry and vectorises.
  constexpr size_t kBlock = 4096;
  size_t best_block = 0;
  float best = -std::numeric_limits<float>::infinity();
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const size_t end = std::min(begin + kBlock, logits.size());
    float lanes[16];
    std::fill(lanes, lanes + 16, -std::numeric_limits<float>::infinity());
    size_t i = begin;
    for (; i + 16 <= end; i += 16) {
      for (int j = 0; j < 16; ++j) {
        lanes[j] = logits[i + j] > lanes[j] ? logits[i + j] : lanes[j];
      }
    }
    float block = *std::max_element(lanes, lanes + 16);
    for (; i < end; ++i) block = std::max(block, logits[i]);
    if (block > best) {
      best = block;
      best_block = begin;
    }
  }
  for (size_t i = best_block; i < logits.size(); ++i) {
    if (logits[i] == best) return static_cast<int32_t>(i);
  }
  return 0;
}

double LogSumExp(absl::Span<const float> logits) {
  const float max_logit = logits[ArgMax(logits)];
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit - max_logit);
  return max_logit + std::log(sum);
}

std::vector<int32_t> TopN(absl::Span<const float> logits, int n) {
  if (n <= 0) return {};
  const float bound = LowerBoundOfTop(logits, n, logits[ArgMax(logits)]);
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] >= bound) tokens.push_back(static_cast<int32_t>(i));
  }
  const auto more_likely = [&](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  if (static_cast<size_t>(n) < tokens.size()) {
    std::nth_element(tokens.begin(), tokens.begin() + n, tokens.end(),
                     more_likely);
    tokens.resize(n);
  }
  std::sort(tokens.begin(), tokens.end(), more_likely);
  return tokens;
}

}  // namespace onegrid::inference
