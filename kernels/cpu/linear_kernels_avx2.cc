// Compiled for AVX2, FMA and F16C.
#include "kernels/cpu/linear_kernels_avx2_inl.h"

namespace onegrid::cpu {

const LinearKernels kLinearKernelsAvx2 = kLocalLinearKernels;

}  // namespace onegrid::cpu
