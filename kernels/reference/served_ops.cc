// Compiled with -ffp-contract=off: products and sums are fused where this file
// says fma, and nowhere else.
#include "kernels/reference/served_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/base/check.h"
#include "kernels/base/clones.h"
#include "kernels/quant/int8_activations.h"

namespace onegrid::reference {
namespace {

constexpr int64_t kGroup = quant::kActivationGroup;
// Lower than any score.
constexpr float kLowestScore = -3.0e38f;

ONEGRID_INLINE float Fma(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}

// Rounded to an integer, nearest even; |x| < 2^22.
ONEGRID_INLINE float Round(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

// Cephes' expf on x = n ln 2 + r.
ONEGRID_INLINE float Exp(float x) {
  x = x > -87.0f ? x : -87.0f;
  x = x < 88.0f ? x : 88.0f;
  const float shifted = Fma(x, 1.44269504088896341f, 0x1.8p23f);
  const float n = shifted - 0x1.8p23f;
  float r = Fma(n, -0.693359375f, x);
  r = Fma(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = Fma(p, r, 1.3981999507e-3f);
  p = Fma(p, r, 8.3334519073e-3f);
  p = Fma(p, r, 4.1665795894e-2f);
  p = Fma(p, r, 1.6666665459e-1f);
  p = Fma(p, r, 5.0000001201e-1f);
  p = Fma(p, r * r, r) + 1.0f;
  uint32_t bits, exponent;
  std::memcpy(&bits, &p, sizeof(bits));
  std::memcpy(&exponent, &shifted, sizeof(exponent));
  bits += exponent << 23;
  std::memcpy(&p, &bits, sizeof(p));
  return p;
}

ONEGRID_INLINE float Total(const float* parts) {
  float sum = 0;
  for (int i = 0; i < kServedSumLanes; ++i) sum += parts[i];
  return sum;
}

ONEGRID_INLINE int32_t Dot(const int16_t* a, const int8_t* b, int64_t count) {
  int32_t dot = 0;
  for (int64_t i = 0; i < count; ++i) dot += int32_t{a[i]} * int32_t{b[i]};
  return dot;
}

// out[i * stride] = x [m, k] times one weight row. Codes are 16 bits wide
// because processors multiply these in pairs.
ONEGRID_CLONES
void Column(const int16_t* x, const float* x_scales, const int16_t* w,
            const float* w_scales, int64_t w_group, int64_t m, int64_t k,
            float* out, int64_t stride) {
  const int64_t groups = k / kGroup;
  for (int64_t i = 0; i < m; ++i) {
    float total = 0;
    for (int64_t g = 0; g < groups; ++g) {
      const int16_t* a = x + i * k + g * kGroup;
      const int16_t* b = w + g * kGroup;
      int32_t dot = 0;
      for (int64_t j = 0; j < kGroup; ++j) dot += int32_t{a[j]} * int32_t{b[j]};
      total = Fma(static_cast<float>(dot) * w_scales[g * kGroup / w_group],
                  x_scales[i * groups + g], total);
    }
    out[i * stride] = total;
  }
}

// A query in 16 bits.
struct Query {
  std::vector<int16_t> codes;
  float scale;
};

Query QuantizeQuery(const float* q, int64_t d, float factor) {
  std::vector<float> x(q, q + d);
  quant::RotateHadamard(absl::MakeSpan(x));
  Query query{std::vector<int16_t>(x.size()), 0};
  query.scale = quant::QuantizeInt16(x, query.codes.data()) * factor;
  return query;
}

// Softmax over some keys: their maximum, the sum of exponentials and the sum of
// values weighted by these.
struct Softmax {
  float max = kLowestScore;
  float sum = 0;
  std::vector<float> values;
};

// dots [count] += weight * values [count].
ONEGRID_CLONES
void AddCodes(int32_t weight, const int8_t* values, int64_t count,
              int32_t* dots) {
  for (int64_t i = 0; i < count; ++i) dots[i] += weight * values[i];
}

// values = those of tokens [first, first + p.size()) of a key/value head,
// weighted by p.
void WeighValues(absl::Span<const float> p, const ServedCache& cache,
                 int64_t kv_head, int64_t first, std::vector<float>* values) {
  const auto row = [&](size_t t) {
    return (first + static_cast<int64_t>(t)) * cache.kv_heads + kv_head;
  };
  std::vector<float> weights(p.begin(), p.end());
  for (size_t t = 0; t < p.size(); ++t) {
    weights[t] *= cache.token_scales[static_cast<size_t>(row(t))];
  }
  std::vector<int16_t> codes(p.size());
  const float unit = quant::QuantizeInt16(weights, codes.data()) * 32768.0f;
  const int64_t groups = cache.head_dim / kGroup;
  for (int64_t g = 0; g < groups; ++g) {
    // Below 2^31: 256 tokens of at most 32766 times 127.
    int32_t dots[kGroup] = {};
    for (size_t t = 0; t < p.size(); ++t) {
      const int64_t group = row(t) * groups + g;
      const int32_t product =
          int32_t{codes[t]} * cache.group_scales[static_cast<size_t>(group)];
      AddCodes((product + (1 << 14)) >> 15,
               cache.values.data() + group * kGroup, kGroup, dots);
    }
    for (const int32_t dot : dots) {
      values->push_back(static_cast<float>(dot) * unit);
    }
  }
}

// Keys [first, last) of one part, which starts at token `part`.
Softmax RunPart(const Query& query, const ServedCache& cache, int64_t kv_head,
                int64_t part, int64_t first, int64_t last) {
  const int64_t d = cache.head_dim;
  Softmax state;
  std::vector<float> scores;
  for (int64_t t = first; t < last; ++t) {
    const int64_t row = t * cache.kv_heads + kv_head;
    const int8_t* key = cache.keys.data() + row * d;
    // Below 2^31 for heads of up to 512.
    const int32_t dot = Dot(query.codes.data(), key, d);
    scores.push_back(
        static_cast<float>(dot) *
        (cache.key_scales[static_cast<size_t>(row)] * query.scale));
    state.max = std::max(state.max, scores.back());
  }
  float parts[kServedSumLanes] = {};
  for (int64_t t = first; t < last; ++t) {
    float& score = scores[static_cast<size_t>(t - first)];
    score = Exp(score - state.max);
    parts[(t - part) % kServedSumLanes] += score;
  }
  state.sum = Total(parts);
  WeighValues(scores, cache, kv_head, first, &state.values);
  return state;
}

void Join(const Softmax& later, Softmax* total) {
  const float common = std::max(later.max, total->max);
  const float a = Exp(total->max - common), b = Exp(later.max - common);
  for (size_t i = 0; i < total->values.size(); ++i) {
    total->values[i] = Fma(later.values[i], b, total->values[i] * a);
  }
  total->max = common;
  total->sum = total->sum * a + later.sum * b;
}

}  // namespace

float ServedExp(float x) { return Exp(x); }

ONEGRID_CLONES
void ServedRmsNorm(const float* x, const float* weight, int64_t k, float eps,
                   bool add, float* out) {
  float parts[kServedSumLanes] = {};
  for (int64_t i = 0; i < k; ++i) {
    float& part = parts[i % kServedSumLanes];
    part = Fma(x[i], x[i], part);
  }
  const float mean = Total(parts) / static_cast<float>(k);
  const float r = 1.0f / std::sqrt(mean + eps);
  for (int64_t i = 0; i < k; ++i) {
    const float y = x[i] * r * weight[i];
    out[i] = add ? out[i] + y : y;
  }
}

ONEGRID_CLONES
void ServedGeluMul(const float* gate, const float* up, int64_t count,
                   float* out) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = gate[i];
    const float z =
        g * Fma(0.0713548162726002527f, g * g, 1.59576912160573071f);
    out[i] = g / (1.0f + Exp(-z)) * up[i];
  }
}

ONEGRID_CLONES
void ServedRope(const float* cosines, const float* sines, int64_t half,
                float* x) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = Fma(a, cosines[i], -(b * sines[i]));
    x[i + half] = Fma(a, sines[i], b * cosines[i]);
  }
}

void ServedRopeAngles(int64_t position, int64_t half, double theta,
                      double position_scale, float* cosines, float* sines,
                      int64_t pairs) {
  for (int64_t i = 0; i < half; ++i) {
    if (pairs > 0 && i >= pairs) {
      cosines[i] = 1;
      sines[i] = 0;
      continue;
    }
    const double frequency =
        std::pow(theta, -2.0 * static_cast<double>(i) /
                            static_cast<double>(2 * half)) /
        position_scale;
    const double angle = static_cast<double>(position) * frequency;
    cosines[i] = static_cast<float>(std::cos(angle));
    sines[i] = static_cast<float>(std::sin(angle));
  }
}

void ServedSoftCap(float cap, int64_t count, float* x) {
  const float twice = 2.0f / cap;
  for (int64_t i = 0; i < count; ++i) {
    const float e = ServedExp(x[i] * twice);
    x[i] = cap * ((e - 1.0f) / (e + 1.0f));
  }
}

ServedInput QuantizeServed(const float* x, int64_t m, int64_t k, int bits) {
  KERNELS_CHECK(k % kGroup == 0);
  KERNELS_CHECK(bits == 8 || bits == 16);
  ServedInput input{m, k, std::vector<int16_t>(static_cast<size_t>(m * k)), {}};
  int8_t narrow[kGroup];
  for (int64_t at = 0; at < m * k; at += kGroup) {
    const auto group = absl::MakeConstSpan(x + at, kGroup);
    int16_t* codes = input.codes.data() + at;
    if (bits == 16) {
      input.scales.push_back(quant::QuantizeInt16(group, codes));
      continue;
    }
    input.scales.push_back(quant::QuantizeInt8(group, narrow));
    std::copy_n(narrow, kGroup, codes);
  }
  return input;
}

void ServedLinear(const ServedInput& input, const quant::GridMatrix& w,
                  int64_t begin, int64_t end, float* out) {
  KERNELS_CHECK(w.cols == input.k);
  const int64_t k = input.k;
  std::vector<int16_t> weights(static_cast<size_t>(k));
  for (int64_t row = begin; row < end; ++row) {
    std::copy_n(w.codes.data() + row * k, k, weights.begin());
    Column(input.codes.data(), input.scales.data(), weights.data(),
           w.scales.data() + row * (k / w.grid->group), w.grid->group, input.m,
           k, out + row, w.rows);
  }
}

void ServedAppend(const float* k, const float* v, ServedCache* cache) {
  const int64_t d = cache->head_dim;
  std::vector<float> rotated(static_cast<size_t>(d));
  std::vector<int8_t> codes(static_cast<size_t>(d));
  for (int64_t head = 0; head < cache->kv_heads; ++head) {
    std::copy(k + head * d, k + (head + 1) * d, rotated.begin());
    quant::RotateHadamard(absl::MakeSpan(rotated));
    cache->key_scales.push_back(quant::QuantizeInt8(rotated, codes.data()));
    cache->keys.insert(cache->keys.end(), codes.begin(), codes.end());
    std::vector<float> scales;
    for (int64_t at = 0; at < d; at += kGroup) {
      scales.push_back(quant::QuantizeInt8(
          absl::MakeConstSpan(v + head * d + at, kGroup), codes.data() + at));
    }
    std::vector<int16_t> multiples(scales.size());
    cache->token_scales.push_back(
        quant::QuantizeInt16(scales, multiples.data()));
    cache->group_scales.insert(cache->group_scales.end(), multiples.begin(),
                               multiples.end());
    cache->values.insert(cache->values.end(), codes.begin(), codes.end());
  }
}

void ServedAttend(const float* q, const ServedCache& cache, int64_t kv_head,
                  int64_t position, int64_t window, float scale, float* out) {
  const int64_t d = cache.head_dim;
  const Query query = QuantizeQuery(q, d, scale);
  const int64_t end = position + 1;
  const int64_t first = window > 0 ? std::max<int64_t>(0, end - window) : 0;
  Softmax total;
  for (int64_t part = first / kServedPartTokens * kServedPartTokens; part < end;
       part += kServedPartTokens) {
    const int64_t from = std::max(first, part);
    const int64_t to = std::min(end, part + kServedPartTokens);
    Softmax state = RunPart(query, cache, kv_head, part, from, to);
    if (total.values.empty()) {
      total = std::move(state);
    } else {
      Join(state, &total);
    }
  }
  const float inverse = 1.0f / total.sum;
  for (int64_t i = 0; i < d; ++i) out[i] = total.values[i] * inverse;
}

}  // namespace onegrid::reference
