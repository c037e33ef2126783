#include "kernels/base/cpu_features.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace onegrid::kernels {
namespace {

bool Bit(uint32_t word, int bit) { return ((word >> bit) & 1u) != 0; }

// The XCR0 register: which vector state the system saves on a task switch.
uint64_t ReadXcr0() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Linux saves the state of tiles only for processes that ask for it:
// Documentation/arch/x86/xstate.rst.
bool MayUseTiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Vendor: AMD64 Architecture Programmer's Manual, volume 3, appendix E.
bool MadeByAmd() {
  uint32_t eax, ebx, ecx, edx;
  if (__get_cpuid(0, &eax, &ebx, &ecx, &edx) == 0) return false;
  return ebx == signature_AMD_ebx && edx == signature_AMD_edx &&
         ecx == signature_AMD_ecx;
}

// Bit positions: Intel Software Developer's Manual, volume 2A, CPUID.
CpuFeatures Detect() {
  CpuFeatures found;
  found.amd = MadeByAmd();
  uint32_t eax, ebx, ecx, edx;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return found;
  const bool os_saves_state = Bit(ecx, 27);
  if (!os_saves_state) return found;
  const uint64_t xcr0 = ReadXcr0();
  const bool ymm = (xcr0 & 0x6) == 0x6;
  const bool zmm = (xcr0 & 0xe6) == 0xe6;
  const bool tiles = (xcr0 & 0x60000) == 0x60000;
  found.fma = ymm && Bit(ecx, 12);
  found.f16c = ymm && Bit(ecx, 29);
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return found;
  const uint32_t subleaves = eax;
  found.avx2 = ymm && Bit(ebx, 5);
  found.avx512f = zmm && Bit(ebx, 16);
  found.avx512bw = zmm && Bit(ebx, 30);
  found.avx512vl = zmm && Bit(ebx, 31);
  found.avx512vnni = zmm && Bit(ecx, 11);
  found.gfni = zmm && Bit(ecx, 8);
  const bool amx = tiles && Bit(edx, 24) && MayUseTiles();
  found.amx_bf16 = amx && Bit(edx, 22);
  found.amx_int8 = amx && Bit(edx, 25);
  if (subleaves >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0) {
    found.avxvnni = ymm && Bit(eax, 4);
    found.avx512bf16 = zmm && Bit(eax, 5);
  }
  return found;
}

}  // namespace

const CpuFeatures& GetCpuFeatures() {
  static const CpuFeatures features = Detect();
  return features;
}

bool IsaSupported(Isa isa) {
  const CpuFeatures& cpu = GetCpuFeatures();
  const bool avx2 = cpu.avx2 && cpu.fma && cpu.f16c;
  const bool avx512 =
      avx2 && cpu.avx512f && cpu.avx512bw && cpu.avx512vl && cpu.avx512vnni;
  switch (isa) {
    case Isa::kReference:
      return true;
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvxVnni:
      return avx2 && cpu.avxvnni;
    case Isa::kAvx512Vnni:
      return avx512;
    case Isa::kAmx:
      return avx512 && cpu.gfni && cpu.amx_int8;
  }
  return false;
}

bool UsesZenKernels(Isa isa) {
  return isa == Isa::kAvx512Vnni && GetCpuFeatures().amd;
}

Isa BestIsa() {
  if (IsaSupported(Isa::kAmx)) return Isa::kAmx;
  if (IsaSupported(Isa::kAvx512Vnni)) return Isa::kAvx512Vnni;
  if (IsaSupported(Isa::kAvxVnni)) return Isa::kAvxVnni;
  if (IsaSupported(Isa::kAvx2)) return Isa::kAvx2;
  return Isa::kReference;
}

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return "reference";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avx2_vnni";
    case Isa::kAvx512Vnni:
      return "avx512_vnni";
    case Isa::kAmx:
      return "amx_int8";
  }
  return "unknown";
}

}  // namespace onegrid::kernels
