#include "kernels/cpu/simd_avx2.h"
// After the vectors it works on.
#include "kernels/cpu/vector_kernels_inl.h"

namespace onegrid::cpu {

const VectorKernels kVectorKernelsAvx2 = kLocalVectorKernels;

}  // namespace onegrid::cpu
