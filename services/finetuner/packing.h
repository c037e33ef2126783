// Token sequences with labels, and packing of several into one row.
//
// A packed sequence is a list of segments laid end to end. Segments never see
// each other: positions restart at 0 and attention runs per segment, so the
// loss of a packed sequence equals that of its examples run one by one.
#ifndef SERVICES_FINETUNER_PACKING_H_
#define SERVICES_FINETUNER_PACKING_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace onegrid::finetuner {

// Target of a position whose prediction is not part of the loss.
inline constexpr int32_t kNoTarget = -1;

// Tokens begin..end-1 of an example.
struct TokenSpan {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t size() const { return end - begin; }
  bool operator==(const TokenSpan&) const = default;
};

// One example.
struct TokenizedExample {
  std::vector<int32_t> tokens;
  // The tokens to be predicted, each from those before it: ascending and
  // disjoint, 1 <= begin < end <= tokens.size().
  std::vector<TokenSpan> labels;

  bool operator==(const TokenizedExample&) const = default;
};

// Examples laid end to end.
struct PackedSequence {
  std::vector<int32_t> tokens;
  // targets[i] is the token that position i should predict, or kNoTarget.
  std::vector<int32_t> targets;
  // Start of each segment, then tokens.size().
  std::vector<int64_t> segment_starts = {0};
  // Index of each segment's example in the span that was packed.
  std::vector<int64_t> examples;

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  int64_t segments() const { return static_cast<int64_t>(examples.size()); }
  int64_t label_count() const;
};

// Adds an example as a new segment, cut to its first `max_tokens` tokens.
// `index` is what PackedSequence::examples will say.
void AppendSegment(const TokenizedExample& example, int64_t index,
                   int64_t max_tokens, PackedSequence* sequence);

// Packs the examples named by `order` into sequences of at most max_tokens,
// first fit over the sequences still open, in the given order. An example
// longer than max_tokens is cut. Deterministic.
std::vector<PackedSequence> Pack(absl::Span<const TokenizedExample> examples,
                                 absl::Span<const int64_t> order,
                                 int64_t max_tokens);

// 0..n-1 shuffled; the same for the same seed on every platform.
std::vector<int64_t> ShuffledOrder(int64_t n, uint64_t seed);

// Segments of similar length, processed as one batch padded to `padded`.
struct SegmentBucket {
  int64_t padded = 0;  // Tokens per row; at least every member's length.
  // Indices of segments, in order.
  std::vector<int64_t> segments;
};

// Groups the segments by length rounded up to a multiple of 32, so that the
// padding stays below 32 tokens per segment.
std::vector<SegmentBucket> BucketSegments(const PackedSequence& sequence);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_PACKING_H_
