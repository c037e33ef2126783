#include "kernels/cpu/simd_avx512.h"
// After the vectors it works on.
#include "kernels/cpu/attention_kernels_inl.h"

namespace onegrid::cpu {

const AttentionKernels kAttentionKernelsAvx512 = kLocalAttentionKernels;

}  // namespace onegrid::cpu
