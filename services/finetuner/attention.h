// Causal grouped-query attention over packed segments, with q/k norm and rotary
// embedding inside, differentiable.
//
// Segments are gathered into batches padded to similar length, so that the
// products run as a few batched matrix multiplications and no score between
// different segments is ever computed.
#ifndef SERVICES_FINETUNER_ATTENTION_H_
#define SERVICES_FINETUNER_ATTENTION_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "services/finetuner/packing.h"

namespace onegrid::finetuner {

// Where the tokens of a packed sequence lie in the padded batches.
struct AttentionLayout {
  struct Token {
    int64_t row;       // In the packed sequence.
    int64_t slot;      // Segment within the bucket.
    int64_t position;  // Within the segment.
  };
  struct Bucket {
    int64_t padded = 0;            // Tokens per slot.
    std::vector<int64_t> lengths;  // Per slot.
    std::vector<Token> tokens;
  };
  std::vector<Bucket> buckets;
};

AttentionLayout MakeAttentionLayout(const PackedSequence& sequence);

// Cosines and sines by position: [positions, head_dim / 2] float32 each.
struct RopeTable {
  at::Tensor cosines;
  at::Tensor sines;
};

// With `pairs` above 0 only the first so many of the head_dim / 2 pairs rotate.
RopeTable MakeRopeTable(int64_t positions, int64_t head_dim, double theta,
                        double scaling_factor, int64_t pairs = 0);

// One layer's attention, all but its projections.
struct AttentionSpec {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t window = 0;  // A query sees this many positions, its own included.
  // Where keys and values begin in the projection that has them; values may be
  // the keys before norm and rotation.
  int64_t k_column = 0;
  int64_t v_column = 0;
  bool norm_values = false;  // Each to a mean square of 1.
  double scale = 0;
  double eps = 0;
  at::Tensor q_norm;  // [head_dim] float32
  at::Tensor k_norm;  // Of the layer whose keys these are.
  RopeTable rope;
};

// q [T, columns]: heads * head_dim of queries, then, unless `kv` is defined,
// keys and values, straight from their projection -> [T, heads * head_dim] of
// the same type. kv [T, columns] is another layer's q, whose keys and values
// are attended to; gradients go to both. `spec` and `layout` must outlive the
// backward pass. as_served: keys and values are rounded as in the inference
// service's cache, gradients pass straight through.
at::Tensor Attention(const at::Tensor& q, const at::Tensor& kv,
                     const AttentionSpec& spec, const AttentionLayout& layout,
                     bool as_served);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_ATTENTION_H_
