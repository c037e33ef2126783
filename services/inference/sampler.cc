#include "services/inference/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/cpu/coarse_products.h"

namespace onegrid::inference {
namespace {

absl::Status OutOfRange(absl::string_view field, double value,
                        absl::string_view range) {
  return absl::InvalidArgumentError(
      absl::StrCat("sampling.", field, " is ", value, ", expected ", range));
}

constexpr float kNone = -std::numeric_limits<float>::infinity();

// Tokens that hold the n largest logits, and others. Rows are as long as the
// vocabulary, so they are read once: the n-th largest of the maxima of small
// blocks bounds the n-th largest logit from below, and few blocks reach it.
std::vector<int32_t> Candidates(absl::Span<const float> logits, size_t n) {
  size_t block_size = 64;
  while (block_size > 1 && logits.size() / block_size < 2 * n) block_size /= 2;
  std::vector<float> maxima;
  for (size_t begin = 0; begin < logits.size(); begin += block_size) {
    const absl::Span<const float> block = logits.subspan(begin, block_size);
    maxima.push_back(
        cpu::LargestOf(block.data(), static_cast<int64_t>(block.size())));
  }
  std::vector<float> sorted = maxima;
  const size_t last = std::min(n, maxima.size()) - 1;
  std::nth_element(sorted.begin(), sorted.begin() + last, sorted.end(),
                   std::greater<float>());
  const float bound = n <= maxima.size() ? sorted[last] : kNone;
  std::vector<int32_t> tokens;
  for (size_t b = 0; b < maxima.size(); ++b) {
    if (maxima[b] < bound || maxima[b] == kNone) continue;
    const size_t end = std::min((b + 1) * block_size, logits.size());
    for (size_t i = b * block_size; i < end; ++i) {
      if (logits[i] >= bound && logits[i] > kNone) {
        tokens.push_back(static_cast<int32_t>(i));
      }
    }
  }
  // Masks leave few: of what is masked, the first ones come next.
  for (size_t i = 0; i < logits.size() && tokens.size() < n; ++i) {
    if (logits[i] == kNone) tokens.push_back(static_cast<int32_t>(i));
  }
  return tokens;
}

std::vector<cpu::TopProduct> Largest(absl::Span<const float> logits, int n) {
  std::vector<cpu::TopProduct> largest;
  for (const int32_t token : TopN(logits, n)) {
    largest.push_back({token, logits[token]});
  }
  return largest;
}

absl::Status ValidateBias(const SamplerOptions& options, int64_t vocab_size) {
  if (options.logit_bias.size() > kMaxLogitBias) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampling.logit_bias has ", options.logit_bias.size(),
                     " entries, expected at most ", kMaxLogitBias));
  }
  for (const auto& [token, bias] : options.logit_bias) {
    if (token < 0 || token >= vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("sampling.logit_bias has token id ", token,
                       ", expected 0..", vocab_size - 1));
    }
    if (!(bias >= -100 && bias <= 100)) {
      return OutOfRange(absl::StrCat("logit_bias of ", token), bias,
                        "-100..100");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateSampler(const SamplerOptions& options,
                             int64_t vocab_size) {
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
  if (!(options.presence_penalty >= -2 && options.presence_penalty <= 2)) {
    return OutOfRange("presence_penalty", options.presence_penalty, "-2..2");
  }
  if (!(options.frequency_penalty >= -2 && options.frequency_penalty <= 2)) {
    return OutOfRange("frequency_penalty", options.frequency_penalty, "-2..2");
  }
  return ValidateBias(options, vocab_size);
}

Sampler::Sampler(const SamplerOptions& options)
    : options_(options), random_(options.seed) {}

void Sampler::ObservePrompt(int32_t token) {
  if (options_.repetition_penalty == 1) return;
  const size_t index = static_cast<size_t>(token);
  if (index >= seen_.size()) seen_.resize(index + 1, false);
  if (seen_[index]) return;
  seen_[index] = true;
  seen_tokens_.push_back(token);
}

void Sampler::ObserveOutput(int32_t token) {
  ObservePrompt(token);
  if (options_.presence_penalty == 0 && options_.frequency_penalty == 0) return;
  ++output_counts_[token];
}

bool Sampler::changes_logits() const {
  return !options_.logit_bias.empty() || !seen_tokens_.empty() ||
         !output_counts_.empty();
}

void Sampler::ApplyBiasAndPenalties(absl::Span<float> logits) const {
  for (const auto& [token, bias] : options_.logit_bias) logits[token] += bias;
  const float penalty = options_.repetition_penalty;
  for (int32_t token : seen_tokens_) {
    float& logit = logits[token];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
  // In any order: each entry is of another token.
  for (const auto& [token, count] : output_counts_) {
    logits[token] -= options_.frequency_penalty * static_cast<float>(count);
    logits[token] -= options_.presence_penalty;
  }
}

// 53 random bits, so the same on every standard library.
double Sampler::Uniform() { return (random_() >> 11) * 0x1.0p-53; }

int32_t Sampler::Sample(absl::Span<float> logits) {
  ApplyBiasAndPenalties(logits);
  if (options_.temperature == 0 || options_.top_k == 1) return ArgMax(logits);
  const bool filtered =
      options_.top_k > 0 || options_.top_p < 1 || options_.min_p > 0;
  return filtered ? DrawFromFiltered(logits) : DrawFromAll(logits);
}

int32_t Sampler::DrawFromAll(absl::Span<const float> logits) {
  const float max_logit =
      cpu::LargestOf(logits.data(), static_cast<int64_t>(logits.size()));
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

double Sampler::Weight(float logit, float max_logit) const {
  const float scale = 1.0f / options_.temperature;
  return std::exp(static_cast<double>(logit - max_logit) * scale);
}

Sampler::Kept Sampler::Keep(absl::Span<const cpu::TopProduct> best,
                            double total) const {
  Kept kept = {0, 0};
  for (; kept.count < best.size(); ++kept.count) {
    const double w = Weight(best[kept.count].value, best[0].value);
    const bool enough = kept.count > 0 && kept.mass >= options_.top_p * total;
    // Of weight 0 are tokens that may not be drawn, however sums are rounded.
    if (enough || w < options_.min_p || w == 0) break;
    kept.mass += w;
  }
  return kept;
}

int32_t Sampler::Draw(absl::Span<const cpu::TopProduct> best,
                      const Kept& kept) {
  double left = Uniform() * kept.mass;
  for (const cpu::TopProduct& logit : best.first(kept.count)) {
    left -= Weight(logit.value, best[0].value);
    if (left < 0) return logit.index;
  }
  return best[kept.count - 1].index;
}

int32_t Sampler::DrawFromTop(absl::Span<const cpu::TopProduct> best) {
  double total = 0;
  for (const cpu::TopProduct& logit : best) {
    const double w = Weight(logit.value, best[0].value);
    if (w >= options_.min_p) total += w;
  }
  return Draw(best, Keep(best, total));
}

int32_t Sampler::DrawFromFiltered(absl::Span<const float> logits) {
  const int vocab = static_cast<int>(logits.size());
  if (options_.top_k > 0 && options_.top_k < vocab) {
    return DrawFromTop(Largest(logits, options_.top_k));
  }
  // top_p's mass is a share of what min_p kept.
  const float max_logit =
      cpu::LargestOf(logits.data(), static_cast<int64_t>(logits.size()));
  double total = 0;
  for (const float logit : logits) {
    const double w = Weight(logit, max_logit);
    if (w >= options_.min_p) total += w;
  }
  int64_t count = std::min(vocab, 1024);
  while (true) {
    const std::vector<cpu::TopProduct> best =
        Largest(logits, static_cast<int>(count));
    const Kept kept = Keep(best, total);
    if (kept.count < best.size() || count == vocab) return Draw(best, kept);
    count = std::min<int64_t>(vocab, count * 8);
  }
}

int Sampler::top_logits() const {
  if (!options_.logit_bias.empty() || options_.repetition_penalty != 1 ||
      options_.presence_penalty != 0 || options_.frequency_penalty != 0) {
    return 0;
  }
  return options_.temperature == 0 ? 1 : options_.top_k;
}

int32_t Sampler::SampleTop(absl::Span<const cpu::TopProduct> best) {
  return top_logits() == 1 ? best[0].index : DrawFromTop(best);
}

int32_t ArgMax(absl::Span<const float> logits) {
  // Block maxima first: that loop has no index to carry.
  constexpr size_t kBlock = 4096;
  size_t best_block = 0;
  float best = kNone;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const absl::Span<const float> block = logits.subspan(begin, kBlock);
    const float most =
        cpu::LargestOf(block.data(), static_cast<int64_t>(block.size()));
    if (most > best) {
      best = most;
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
  std::vector<int32_t> tokens = Candidates(logits, static_cast<size_t>(n));
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
