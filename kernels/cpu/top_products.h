// The largest products of activations with the rows of a weight matrix, found
// without computing all of them in full.
#ifndef KERNELS_CPU_TOP_PRODUCTS_H_
#define KERNELS_CPU_TOP_PRODUCTS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/quantized_activations.h"

namespace onegrid::cpu {

struct TopProduct {
  int32_t index;  // of a row of the weights
  float value;
};

// The largest of `count` values; minus infinity of none. Those that are not
// numbers do not count.
float LargestOf(const float* values, int64_t count);

// What is wanted are the largest of Linear with activations in 16 bits, as of a
// vocabulary's logits. All rows are multiplied with activations in 8 bits,
// which is half the work. The product of a row w with what that leaves out of
// the activations, e, is at most |e| |w| (Cauchy, Schwarz); so few rows can be
// among the largest, and only those are computed in 16 bits.
//
// Thread-compatible. Holds 4 bytes for each row of the weights, and for the
// call's activations.
class TopProducts {
 public:
  // `weights`, which have codes, and `pool` must outlive this object. Reads all
  // weights once.
  TopProducts(const PackedLinear& weights, kernels::ThreadPool& pool,
              kernels::Isa isa = kernels::BestIsa());

  // For each row m of x [m, k] the counts[m] largest of its products, largest
  // first, ties by lower row: bit for bit those of Linear in 16 bits.
  // 1 <= counts[m] <= n. scratch: [m, n], left with anything. The result is
  // valid until the next call.
  // What is not a number counts as minus infinity.
  absl::Span<const std::vector<TopProduct>> Find(absl::Span<const float> x,
                                                 absl::Span<const int> counts,
                                                 float* scratch);

  // Tiles of weights whose products were computed in 16 bits in the last Find,
  // over all rows of x.
  int64_t tiles_computed() const { return tiles_computed_; }

 private:
  // Looks for the largest of row m, of which `coarse` holds the products in 8
  // bits. Returns the tiles computed.
  int64_t FindRow(int64_t m, int count, const float* coarse);
  // How much a product in 8 bits can be off by for a row of norm 1; infinity if
  // one could overflow.
  float ErrorOfNorm1(int64_t m) const;
  // Calls visit for the rows whose product in 8 bits, which may be off by error
  // * norm, is or may be at least `least`. blocks: the largest of each block.
  template <typename Visit>
  void ForEachAtLeast(const float* coarse, const std::vector<float>& blocks,
                      float error, float least, const Visit& visit) const;

  const PackedLinear& weights_;
  kernels::ThreadPool& pool_;
  const kernels::Isa isa_;
  kernels::AlignedBuffer<float> norms_;  // [n], rounded up
  std::vector<float> block_norms_;       // the largest of each block
  double largest_norm_ = 0;
  QuantizedActivations coarse_;              // x in 8 bits
  std::vector<QuantizedActivations> exact_;  // each row of x in 16 bits
  std::vector<std::vector<TopProduct>> best_;
  int64_t tiles_computed_ = 0;
};

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_TOP_PRODUCTS_H_
