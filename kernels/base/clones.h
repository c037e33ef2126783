// Functions compiled for several levels of x86-64 and chosen at run time.
#ifndef KERNELS_BASE_CLONES_H_
#define KERNELS_BASE_CLONES_H_

// Sanitizers instrument the resolver of a cloned function before they are
// ready to run, so their builds use the plain version only.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define ONEGRID_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ONEGRID_CLONES
#endif
#define ONEGRID_INLINE static inline __attribute__((always_inline))

#endif  // KERNELS_BASE_CLONES_H_
