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

RopeTable MakeRopeTable(int64_t positions, int64_t head_dim, double theta,
                        double scaling_factor);

// One layer's attention, all but its projections.
struct AttentionSpec {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t window = 0;  // A query sees this many positions, its own included.
  double scale = 0;
  double eps = 0;
  at::Tensor q_norm;  // [head_dim] float32
  at::Tensor k_norm;
  RopeTable rope;
};

// qkv [T, (heads + 2 kv_heads) * head_dim]: q, k, v side by side, straight from
// their projection -> [T, heads * head_dim] of the same type. `spec` and
// `layout` must outlive the backward pass. as_served: keys and values are
// rounded as in the inference service's cache, gradients pass straight through.
at::Tensor Attention(const at::Tensor& qkv, const AttentionSpec& spec,
                     const AttentionLayout& layout, bool as_served);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_ATTENTION_H_
