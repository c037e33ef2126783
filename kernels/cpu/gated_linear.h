#ifndef KERNELS_CPU_GATED_LINEAR_H_
#define KERNELS_CPU_GATED_LINEAR_H_

#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/quantized_activations.h"

namespace onegrid::cpu {

// out [m, n] = gelu_tanh(x * gate^T) * (x * up^T), quantized: bit for bit what
// Linear, GeluMul and QuantizeActivations give one after the other, but some
// rows and columns at a time, so that the products stay in the cache of the
// core that made them. gate and up are [n, k] with x.k() == k and has_codes();
// n is a multiple of 32. x was quantized for isa; out gets as many bits. out
// must not be x.
void GatedLinear(const QuantizedActivations& x, const PackedLinear& gate,
                 const PackedLinear& up, QuantizedActivations* out,
                 kernels::ThreadPool& pool,
                 kernels::Isa isa = kernels::BestIsa());

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_GATED_LINEAR_H_
