#ifndef KERNELS_BASE_CPU_FEATURES_H_
#define KERNELS_BASE_CPU_FEATURES_H_

namespace onegrid::kernels {

// Instruction sets that both the processor (CPUID) and the operating system
// (XCR0: saved vector state; for AMX also a permission, which is asked for)
// allow this process to use.
struct CpuFeatures {
  bool avx2 = false;
  bool fma = false;
  bool f16c = false;
  bool avx512f = false;
  bool avx512bw = false;
  bool avx512vl = false;
  bool avx512vnni = false;
  bool avx512bf16 = false;
  bool gfni = false;  // On vectors of 512 bits.
  bool avxvnni = false;
  bool amx_int8 = false;
  bool amx_bf16 = false;
  bool amd = false;  // Not an instruction set: AMD made the processor.
};

// Read once per process; thread-safe.
const CpuFeatures& GetCpuFeatures();

// The implementations that kernels/cpu has of each op.
//   kReference:  portable C++ for any x86-64.
//   kAvx2:       AVX2 + FMA + F16C.
//   kAvxVnni:    AVX-VNNI, the 256-bit form of VNNI, on top of kAvx2.
//   kAvx512Vnni: AVX-512 F, BW, VL and VNNI on top of kAvx2.
//   kAmx:        AMX tiles of int8 and GFNI, which all processors that have
//                them have, on top of kAvx512Vnni.
enum class Isa { kReference, kAvx2, kAvxVnni, kAvx512Vnni, kAmx };

// All of them, the slowest first.
inline constexpr Isa kAllIsas[] = {Isa::kReference, Isa::kAvx2, Isa::kAvxVnni,
                                   Isa::kAvx512Vnni, Isa::kAmx};

// True if this process may run code compiled for isa.
bool IsaSupported(Isa isa);

// True if kernels for AMD's processors run isa here: the same results, with
// loads and products in another order. Only of kAvx512Vnni.
bool UsesZenKernels(Isa isa);

// The fastest supported one.
Isa BestIsa();

// "reference", "avx2", "avx2_vnni", "avx512_vnni" or "amx_int8".
const char* IsaName(Isa isa);

}  // namespace onegrid::kernels

#endif  // KERNELS_BASE_CPU_FEATURES_H_
