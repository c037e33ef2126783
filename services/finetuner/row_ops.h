// Vector loops over single rows of activations: the element-wise half of
// training. Plain C++ that the compiler vectorizes, cloned for x86-64-v3 and
// v4 and chosen at run time. Free of LibTorch, allocation and threads: callers
// split rows over threads. Rows are contiguous; outputs may alias inputs of the
// same type where a function says so.
#ifndef SERVICES_FINETUNER_ROW_OPS_H_
#define SERVICES_FINETUNER_ROW_OPS_H_

#include <cstdint>

namespace onegrid::finetuner {

// bfloat16 bits <-> float; the store rounds to nearest even.
void LoadBf16Row(const uint16_t* src, int64_t n, float* dst);
void StoreBf16Row(const float* src, int64_t n, uint16_t* dst);

// y = x * r * w with r = 1 / sqrt(mean(x^2) + eps); returns r. y may be x.
float RmsNormRow(const float* x, const float* w, int64_t n, float eps,
                 float* y);

// Gradient of RmsNormRow with respect to x, given r it returned. dx may be dy.
void RmsNormGradRow(const float* x, const float* w, const float* dy, float r,
                    int64_t n, float* dx);

// Rotates the pairs (x[j], x[j + half]) in place by the angles whose cosines
// and sines are given; `sign` -1 rotates back.
void RopeRow(const float* cosines, const float* sines, int64_t half, float sign,
             float* x);

// y = gelu_tanh(g) * u.
void GeluMulRow(const float* g, const float* u, int64_t n, float* y);

// Gradients of GeluMulRow with respect to g and u.
void GeluMulGradRow(const float* g, const float* u, const float* dy, int64_t n,
                    float* dg, float* du);

// In place: p[begin..end) = softmax(scale * s[begin..end)), 0 elsewhere in
// [0, n). Requires begin < end.
void MaskedSoftmaxRow(int64_t begin, int64_t end, int64_t n, float scale,
                      float* s);

// In place: ds = scale * p * (dp - sum(p * dp)). Masked entries have p = 0.
void SoftmaxGradRow(const float* p, int64_t n, float scale, float* dp);

// log(sum(exp(x))).
float LogSumExpRow(const float* x, int64_t n);

// In place: x = exp(x - logsumexp), the probabilities.
void ExpMinusRow(float logsumexp, int64_t n, float* x);

// In place, from logits x to model_weight * softmax(x) - teacher_weight *
// softmax(teacher); returns sum softmax(teacher) * (log softmax(teacher) - log
// softmax(x)), the divergence of the two, in nats. The sums of exponentials of
// both are given.
double DistillGradRow(const float* teacher, float teacher_logsumexp,
                      float logsumexp, float model_weight, float teacher_weight,
                      int64_t n, float* x);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_ROW_OPS_H_
