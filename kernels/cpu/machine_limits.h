// What this machine can do at most, measured: the limits that the speed of a
// model is given as a share of.
#ifndef KERNELS_CPU_MACHINE_LIMITS_H_
#define KERNELS_CPU_MACHINE_LIMITS_H_

#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"

namespace onegrid::cpu {

struct MachineLimits {
  // 1e9 bytes a second, read once from 256 MB of memory by all threads.
  double read_gb_per_s = 0;
  // 1e9 multiplications and additions of bytes a second on all threads, by the
  // fastest instruction of the set: tdpbssd on whole tiles with AMX, vpdpbusd
  // with AVX-512 VNNI, vpmaddubsw with
  // sums of 16 bits with AVX2, pmaddwd of 16-bit values without either.
  double int8_gops = 0;
};

// Medians of several passes; about a second, and 256 MB while it runs. `isa`
// must be supported. Nothing else should use the pool or, for figures that mean
// something, the machine.
MachineLimits MeasureMachineLimits(kernels::ThreadPool& pool,
                                   kernels::Isa isa = kernels::BestIsa());

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_MACHINE_LIMITS_H_
