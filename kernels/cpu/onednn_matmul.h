#ifndef KERNELS_CPU_ONEDNN_MATMUL_H_
#define KERNELS_CPU_ONEDNN_MATMUL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/base/thread_pool.h"

namespace onegrid::cpu {

// A weight matrix [n, k] in bf16, packed once in the layout that oneDNN's
// matmul prefers, for products with many rows. Runs on the caller's pool.
// Thread-compatible: one Multiply at a time.
class Bf16Linear {
 public:
  // weights: [n, k] floats, row-major, rounded to bf16 (nearest even); they are
  // not needed afterwards.
  // FailedPrecondition: the processor has neither AVX-512 BF16 nor AMX BF16, or
  // oneDNN has only its reference implementation for the shape: other linears
  // are faster then. InvalidArgument: sizes do not fit. Internal: oneDNN
  // failed.
  static absl::StatusOr<std::unique_ptr<Bf16Linear>> Create(
      absl::Span<const float> weights, int64_t n, int64_t k,
      kernels::ThreadPool& pool);

  ~Bf16Linear();
  Bf16Linear(const Bf16Linear&) = delete;
  Bf16Linear& operator=(const Bf16Linear&) = delete;

  // out [m, n] = bf16(x [m, k]) * w^T, summed in f32. A number of rows not seen
  // before costs the making of a primitive, some milliseconds once.
  // Errors: as Create.
  absl::Status Multiply(const float* x, int64_t m, float* out,
                        kernels::ThreadPool& pool);

  int64_t n() const;
  int64_t k() const;
  int64_t bytes() const;
  // oneDNN's name of the implementation in use, for example
  // "brg_matmul:avx512_core_bf16".
  const std::string& implementation() const;

 private:
  class Impl;
  explicit Bf16Linear(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_ONEDNN_MATMUL_H_
