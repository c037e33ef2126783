#include "kernels/base/check.h"
#include "kernels/cpu/simd_sse2.h"
// After the vectors it works on.
#include "kernels/cpu/attention_kernels_inl.h"

namespace onegrid::cpu {

const AttentionKernels kAttentionKernelsPortable = kLocalAttentionKernels;

const AttentionKernels& AttentionKernelsFor(kernels::Isa isa) {
  KERNELS_CHECK(kernels::IsaSupported(isa));
  switch (isa) {
    case kernels::Isa::kAmx:
      return kAttentionKernelsAmx;
    case kernels::Isa::kAvx512Vnni:
      return kernels::UsesZenKernels(isa) ? kAttentionKernelsZen
                                          : kAttentionKernelsAvx512;
    case kernels::Isa::kAvxVnni:
      return kAttentionKernelsAvxVnni;
    case kernels::Isa::kAvx2:
      return kAttentionKernelsAvx2;
    case kernels::Isa::kReference:
      break;
  }
  return kAttentionKernelsPortable;
}

}  // namespace onegrid::cpu
