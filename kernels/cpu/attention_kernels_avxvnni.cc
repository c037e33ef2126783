#include "kernels/cpu/simd_avx2.h"
// After the vectors it works on.
#include "kernels/cpu/attention_kernels_inl.h"

namespace onegrid::cpu {

const AttentionKernels kAttentionKernelsAvxVnni = kLocalAttentionKernels;

}  // namespace onegrid::cpu
