// What this machine can do at most, measured: the limits that the speed of a
// model is given as a share of.
#ifndef KERNELS_CPU_MACHINE_LIMITS_H_
#define KERNELS_CPU_MACHINE_LIMITS_H_

#include <cstdint>

#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"

namespace onegrid::cpu {

struct MachineLimits {
  // 1e9 bytes a second, of as many as were asked for, which all threads read
  // again and again: by one sweep to each thread or four side by side,
  // whichever is faster.
  double read_gb_per_s = 0;
  // 1e9 multiplications and additions of bytes a second on all threads, by the
  // fastest instruction of the set: tdpbssd on whole tiles with AMX, vpdpbusd
  // with AVX-512 VNNI, vpmaddubsw with
  // sums of 16 bits with AVX2, pmaddwd of 16-bit values without either.
  double int8_gops = 0;
};

// Medians of several passes; about a second, and `read_bytes` while it runs: as
// many as what is compared reads, so that caches keep as much of them. `isa`
// must be supported. Nothing else should use the pool or, for figures that mean
// something, the machine.
MachineLimits MeasureMachineLimits(kernels::ThreadPool& pool,
                                   int64_t read_bytes,
                                   kernels::Isa isa = kernels::BestIsa());

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_MACHINE_LIMITS_H_
