#include "kernels/base/check.h"
#include "kernels/cpu/simd_sse2.h"
// After the vectors it works on.
#include "kernels/cpu/vector_kernels_inl.h"

namespace onegrid::cpu {

const VectorKernels kVectorKernelsPortable = kLocalVectorKernels;

const VectorKernels& VectorKernelsFor(kernels::Isa isa) {
  KERNELS_CHECK(kernels::IsaSupported(isa));
  switch (isa) {
    case kernels::Isa::kAmx:
    case kernels::Isa::kAvx512Vnni:
      return kVectorKernelsAvx512;
    case kernels::Isa::kAvxVnni:
    case kernels::Isa::kAvx2:
      return kVectorKernelsAvx2;
    case kernels::Isa::kReference:
      break;
  }
  return kVectorKernelsPortable;
}

}  // namespace onegrid::cpu
