#ifndef KERNELS_CPU_VECTOR_KERNELS_H_
#define KERNELS_CPU_VECTOR_KERNELS_H_

#include <cstdint>

#include "kernels/base/cpu_features.h"

// The inner loops of norm, activation, rope and rotation, one set for each
// instruction set. Plain data and declarations only: see linear_kernels.h.

namespace onegrid::cpu {

struct VectorKernels {
  // Of each row: out = x / sqrt(mean(x^2) + eps) * weight (+ out if add); x and
  // out [rows][k], weight [k].
  void (*rms_norm)(const float* x, const float* weight, int64_t rows, int64_t k,
                   float eps, bool add, float* out);
  // out = gelu_tanh(gate) * up.
  void (*gelu_mul)(const float* gate, const float* up, int64_t count,
                   float* out);
  // out = a + b.
  void (*add)(const float* a, const float* b, int64_t count, float* out);
  // out = cap * tanh(x / cap).
  void (*soft_cap)(const float* x, float cap, int64_t count, float* out);
  // out = x * factor.
  void (*scale)(const float* x, float factor, int64_t count, float* out);
  // Rotates x[i] with x[i + half] by cosines[i], sines[i], i < half.
  void (*rope)(const float* cosines, const float* sines, int64_t half,
               float* x);
  // Orthonormal Hadamard transform in place; d a power of two, >= 16.
  void (*hadamard)(float* x, int64_t d);
  // out[i] = the largest of x[16 i] to x[16 i + 15], minus infinity of no
  // number at all.
  void (*largest_of_16)(const float* x, int64_t count, float* out);
  // sums = unit * a + b, all [16 * count]; largest[i] = largest_of_16 of sums.
  // Sums that start on a cache line are written past the caches: others see
  // them after the thread's next store fence.
  void (*add_up_16)(const float* a, float unit, const float* b, int64_t count,
                    float* sums, float* largest);
};

extern const VectorKernels kVectorKernelsPortable;
extern const VectorKernels kVectorKernelsAvx2;
extern const VectorKernels kVectorKernelsAvx512;

// The set for isa, which the processor must support.
const VectorKernels& VectorKernelsFor(kernels::Isa isa);

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_VECTOR_KERNELS_H_
