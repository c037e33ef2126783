// The largest logits of some rows, in the way that costs least.
#ifndef SERVICES_INFERENCE_LOGIT_SEARCH_H_
#define SERVICES_INFERENCE_LOGIT_SEARCH_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/coarse_products.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/sketch_products.h"
#include "kernels/cpu/top_products.h"

namespace onegrid::inference {

// There are three ways, which give the same bits:
//   - a sketch of the head in 4 bits, which is read instead of most of the
//     head: for few rows, of which few logits are wanted;
//   - the head with activations in 8 bits, which is less work: for many rows;
//   - all logits, which the caller computes.
// The sketch is learnt from the first rows that are asked for. How many logits
// it leaves in doubt depends on how alike later ones are: where they are too
// many, it is left alone for a while. Thread-compatible.
class LogitSearch {
 public:
  // The most logits of a row; with more, too many are computed twice.
  static constexpr int kMost = 256;

  // `head`, which has codes, and `pool` must outlive this object. At most
  // `most_rows` will be asked for at once. There is a sketch if the head is
  // split. cap: that of SoftCap (elementwise.h) of the logits; 0: none.
  LogitSearch(const cpu::PackedLinear& head, int most_rows,
              kernels::ThreadPool& pool, kernels::Isa isa, float cap = 0);

  // The counts[m] largest products of row m of x [m, k], largest first, ties by
  // lower row: bit for bit those of Linear in 16 bits, then capped. Empty: to
  // compute all of them is faster. 1 <= counts[m] <= head.n(). scratch: [m, n],
  // left with anything. Valid until the next call.
  absl::Span<const std::vector<cpu::TopProduct>> Find(
      absl::Span<const float> x, absl::Span<const int> counts, float* scratch);

  // Bytes of the head or its sketch that the last Find read; 0 if it was empty.
  int64_t bytes_read() const { return bytes_read_; }
  bool has_sketch() const { return sketch_ != nullptr; }
  // Whether the sketch can be used; true if there will be none.
  bool learnt() const { return sketch_ == nullptr || sketch_->ready(); }

 private:
  // The share of tiles that a row of so many logits takes in full, on average.
  float& Doubt(int most);

  const cpu::PackedLinear& head_;
  cpu::TopProducts top_;
  std::unique_ptr<cpu::ByteProducts> bytes_;
  std::unique_ptr<cpu::SketchProducts> sketch_;
  std::array<float, 3> doubts_;
  int64_t bytes_read_ = 0;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_LOGIT_SEARCH_H_
