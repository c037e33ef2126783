// The largest products of activations with the rows of a weight matrix, found
// without computing all of them in full.
#ifndef KERNELS_CPU_TOP_PRODUCTS_H_
#define KERNELS_CPU_TOP_PRODUCTS_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/coarse_products.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/quantized_activations.h"

namespace onegrid::cpu {

struct TopProduct {
  int32_t index;  // of a row of the weights
  float value;
};

// What is wanted are the largest of Linear with activations in 16 bits, as of a
// vocabulary's logits, or of SoftCap (elementwise.h) of them. All products are
// computed coarsely, with a bound of how far each may be off; so few rows can
// be among the largest, and only those are computed in 16 bits.
//
// Thread-compatible. Holds what its CoarseProducts do, and 4 bytes for 16 rows
// of the weights for each row of a call.
class TopProducts {
 public:
  // `weights`, which have codes, and `pool` must outlive this object. cap:
  // that of SoftCap; 0: none.
  TopProducts(const PackedLinear& weights, kernels::ThreadPool& pool,
              kernels::Isa isa = kernels::BestIsa(), float cap = 0);

  // `coarse` is of these weights. For each row m of x [m, k] the counts[m]
  // largest of its products, largest first, ties by lower row: bit for bit
  // those of Linear in 16 bits, then capped. 1 <= counts[m] <= n. scratch:
  // [m, n], left with anything. The result is valid until the next call. What
  // is not a number counts as minus infinity.
  absl::Span<const std::vector<TopProduct>> Find(CoarseProducts& coarse,
                                                 absl::Span<const float> x,
                                                 absl::Span<const int> counts,
                                                 float* scratch);

  // Tiles of weights whose products were computed in 16 bits in the last Find,
  // over all rows of x.
  int64_t tiles_computed() const { return tiles_computed_; }

 private:
  // The search for the largest of one row of x.
  struct Search {
    QuantizedActivations x;  // in 16 bits
    std::vector<float> errors;
    const float* of_tiles;        // the largest coarse product of each
    std::vector<int32_t> tiles;   // wanted in 16 bits
    std::vector<int32_t> places;  // [tile count] in `tiles`, or -1
    // Of the first tiles, capped.
    std::vector<std::array<float, kTileRows>> products;
    std::vector<int32_t> rows;  // of the weights: may be among the largest
  };

  void Begin(absl::Span<const float> x, Search& search);
  void Want(int64_t row, Search& search) const;
  // Computes the tiles that are wanted and are not there yet.
  void ComputeTiles(int64_t searches);
  TopProduct Exact(int32_t row, const Search& search) const;
  // Wants the rows that look largest, more than `count`.
  void Guess(int count, const float* coarse, Search& search) const;
  // Wants those that can be among the counts[m] largest given what Guess found,
  // and no others.
  void Collect(const CoarseProducts& bounds, const float* coarse,
               absl::Span<const int> counts);
  // The rows of tiles [begin, end) whose product in 16 bits can be `least`.
  std::vector<int32_t> Above(float least, const Search& search,
                             const CoarseProducts& bounds, const float* coarse,
                             int64_t begin, int64_t end) const;

  const PackedLinear& weights_;
  kernels::ThreadPool& pool_;
  const kernels::Isa isa_;
  const float cap_;
  std::vector<float> of_tiles_;  // [rows of a call, tiles]
  std::vector<Search> searches_;
  std::vector<std::vector<TopProduct>> best_;
  int64_t tiles_computed_ = 0;
};

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_TOP_PRODUCTS_H_
