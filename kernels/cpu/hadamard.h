#ifndef KERNELS_CPU_HADAMARD_H_
#define KERNELS_CPU_HADAMARD_H_

#include <cstdint>

#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"

namespace onegrid::cpu {

// Multiplies each row of x [m, d] by the orthonormal Hadamard matrix of size d
// (natural order), in place. d is a power of two, d >= 16. The matrix is its
// own inverse, and dot products of two rotated rows stay what they were.
void Hadamard(float* x, int64_t m, int64_t d, kernels::ThreadPool& pool,
              kernels::Isa isa = kernels::BestIsa());

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_HADAMARD_H_
