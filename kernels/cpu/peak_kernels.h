#ifndef KERNELS_CPU_PEAK_KERNELS_H_
#define KERNELS_CPU_PEAK_KERNELS_H_

#include <cstdint>

// Loops that do nothing but multiply and add bytes, one for each instruction
// set: what a kernel's speed is a share of. Included by files compiled for
// AVX2, AVX-512 and AMX: plain data and declarations only.

namespace onegrid::cpu {

struct PeakKernels {
  // Dot products of unsigned with signed bytes held in registers.
  void (*int8_dots)(int64_t rounds);
  // Multiplications and additions of one round.
  int64_t ops_per_round;
};

extern const PeakKernels kPeakKernelsPortable;
extern const PeakKernels kPeakKernelsAvx2;
extern const PeakKernels kPeakKernelsAvxVnni;
extern const PeakKernels kPeakKernelsAvx512;
extern const PeakKernels kPeakKernelsAmx;

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_PEAK_KERNELS_H_
