// Compiled for AVX-VNNI besides AVX2, FMA and F16C.
#include "kernels/cpu/linear_kernels_avx2_inl.h"

namespace onegrid::cpu {

const LinearKernels kLinearKernelsAvxVnni = kLocalLinearKernels;

}  // namespace onegrid::cpu
