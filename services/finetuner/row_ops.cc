#include "services/finetuner/row_ops.h"

#include <cmath>
#include <cstring>

#include "kernels/base/clones.h"

namespace onegrid::finetuner {
namespace {

// sqrt(2 / pi) and the cubic coefficient of the tanh form of GELU.
constexpr float kGeluScale = 0.7978845608f;
constexpr float kGeluCubic = 0.044715f;

ONEGRID_INLINE float BitsToFloat(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

ONEGRID_INLINE uint32_t FloatToBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// exp(x) within 2 ulp for x in [-87, 88], clamped outside: 2^n * p(r).
ONEGRID_INLINE float Exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds.
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const uint32_t exponent = static_cast<uint32_t>(static_cast<int32_t>(n) + 127)
                            << 23;
  return p * BitsToFloat(exponent);
}

// (1 + tanh(z)) / 2 of GELU's z, as a logistic.
ONEGRID_INLINE float GeluGate(float g) {
  const float z = kGeluScale * (g + kGeluCubic * g * g * g);
  return 1.0f / (1.0f + Exp(-2.0f * z));
}

}  // namespace

ONEGRID_CLONES
void LoadBf16Row(const uint16_t* src, int64_t n, float* dst) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    dst[i] = BitsToFloat(static_cast<uint32_t>(src[i]) << 16);
  }
}

ONEGRID_CLONES
void StoreBf16Row(const float* src, int64_t n, uint16_t* dst) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = FloatToBits(src[i]);
    dst[i] =
        static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
}

ONEGRID_CLONES
float RmsNormRow(const float* x, const float* w, int64_t n, float eps,
                 float* y) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  const float r = 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * r * w[i];
  return r;
}

ONEGRID_CLONES
void RmsNormGradRow(const float* x, const float* w, const float* dy, float r,
                    int64_t n, float* dx) {
  float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < n; ++i) dot += x[i] * w[i] * dy[i];
  const float back = dot * r * r * r / static_cast<float>(n);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) dx[i] = r * w[i] * dy[i] - back * x[i];
}

ONEGRID_CLONES
void RopeRow(const float* cosines, const float* sines, int64_t half, float sign,
             float* x) {
#pragma omp simd
  for (int64_t j = 0; j < half; ++j) {
    const float a = x[j];
    const float b = x[j + half];
    const float s = sign * sines[j];
    x[j] = a * cosines[j] - b * s;
    x[j + half] = b * cosines[j] + a * s;
  }
}

ONEGRID_CLONES
void GeluMulRow(const float* g, const float* u, int64_t n, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = g[i] * GeluGate(g[i]) * u[i];
}

ONEGRID_CLONES
void GeluMulGradRow(const float* g, const float* u, const float* dy, int64_t n,
                    float* dg, float* du) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float gate = GeluGate(g[i]);
    const float slope =
        2.0f * kGeluScale * (1.0f + 3.0f * kGeluCubic * g[i] * g[i]);
    const float dgelu = gate + g[i] * gate * (1.0f - gate) * slope;
    const float d = dy[i];
    du[i] = d * g[i] * gate;
    dg[i] = d * u[i] * dgelu;
  }
}

ONEGRID_CLONES
void MaskedSoftmaxRow(int64_t begin, int64_t end, int64_t n, float scale,
                      float* s) {
  float top = s[begin];
#pragma omp simd reduction(max : top)
  for (int64_t j = begin; j < end; ++j) top = s[j] > top ? s[j] : top;
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = begin; j < end; ++j) {
    const float e = Exp((s[j] - top) * scale);
    s[j] = e;
    sum += e;
  }
  const float inverse = 1.0f / sum;
#pragma omp simd
  for (int64_t j = begin; j < end; ++j) s[j] *= inverse;
  for (int64_t j = 0; j < begin; ++j) s[j] = 0.0f;
  for (int64_t j = end; j < n; ++j) s[j] = 0.0f;
}

ONEGRID_CLONES
void SoftmaxGradRow(const float* p, int64_t n, float scale, float* dp) {
  float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
  for (int64_t j = 0; j < n; ++j) dot += p[j] * dp[j];
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) dp[j] = scale * p[j] * (dp[j] - dot);
}

ONEGRID_CLONES
float LogSumExpRow(const float* x, int64_t n) {
  float top = x[0];
#pragma omp simd reduction(max : top)
  for (int64_t i = 0; i < n; ++i) top = x[i] > top ? x[i] : top;
  // Blocks keep the float sums short; the total is in double.
  constexpr int64_t kBlock = 1024;
  double total = 0.0;
  for (int64_t start = 0; start < n; start += kBlock) {
    const int64_t stop = start + kBlock < n ? start + kBlock : n;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = start; i < stop; ++i) sum += Exp(x[i] - top);
    total += sum;
  }
  return top + static_cast<float>(std::log(total));
}

ONEGRID_CLONES
void ExpMinusRow(float logsumexp, int64_t n, float* x) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] = Exp(x[i] - logsumexp);
}

ONEGRID_CLONES
double DistillGradRow(const float* teacher, float teacher_logsumexp,
                      float logsumexp, float model_weight, float teacher_weight,
                      int64_t n, float* x) {
  constexpr int64_t kBlock = 1024;
  double total = 0.0;
  for (int64_t start = 0; start < n; start += kBlock) {
    const int64_t stop = start + kBlock < n ? start + kBlock : n;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = start; i < stop; ++i) {
      const float log_q = teacher[i] - teacher_logsumexp;
      const float log_p = x[i] - logsumexp;
      const float q = Exp(log_q);
      sum += q * (log_q - log_p);
      x[i] = model_weight * Exp(log_p) - teacher_weight * q;
    }
    total += sum;
  }
  return total;
}

}  // namespace onegrid::finetuner
