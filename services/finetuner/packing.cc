#include "services/finetuner/packing.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <numeric>
#include <random>
#include <utility>

namespace onegrid::finetuner {
namespace {

// Sequences that still take examples; older ones are closed, which bounds the
// search at the cost of a few unused tokens.
constexpr size_t kOpenSequences = 8;
constexpr int64_t kBucketTokens = 32;

}  // namespace

int64_t PackedSequence::label_count() const {
  return std::count_if(targets.begin(), targets.end(),
                       [](int32_t target) { return target != kNoTarget; });
}

void AppendSegment(const TokenizedExample& example, int64_t index,
                   int64_t max_tokens, PackedSequence* sequence) {
  const int64_t start = sequence->size();
  const int64_t count = std::min<int64_t>(max_tokens, example.tokens.size());
  sequence->tokens.insert(sequence->tokens.end(), example.tokens.begin(),
                          example.tokens.begin() + count);
  sequence->targets.resize(static_cast<size_t>(start + count), kNoTarget);
  for (const TokenSpan& span : example.labels) {
    for (int64_t i = span.begin; i < std::min(span.end, count); ++i) {
      sequence->targets[static_cast<size_t>(start + i - 1)] =
          example.tokens[static_cast<size_t>(i)];
    }
  }
  sequence->segment_starts.push_back(sequence->size());
  sequence->examples.push_back(index);
}

std::vector<PackedSequence> Pack(absl::Span<const TokenizedExample> examples,
                                 absl::Span<const int64_t> order,
                                 int64_t max_tokens) {
  std::vector<PackedSequence> done;
  std::vector<PackedSequence> open;
  for (const int64_t index : order) {
    const int64_t length = std::min<int64_t>(
        max_tokens, examples[static_cast<size_t>(index)].tokens.size());
    auto fit = std::find_if(open.begin(), open.end(),
                            [&](const PackedSequence& sequence) {
                              return sequence.size() + length <= max_tokens;
                            });
    if (fit == open.end()) {
      if (open.size() == kOpenSequences) {
        auto fullest = std::max_element(
            open.begin(), open.end(),
            [](const PackedSequence& a, const PackedSequence& b) {
              return a.size() < b.size();
            });
        done.push_back(std::move(*fullest));
        open.erase(fullest);
      }
      open.emplace_back();
      fit = open.end() - 1;
    }
    AppendSegment(examples[static_cast<size_t>(index)], index, max_tokens,
                  &*fit);
  }
  for (PackedSequence& sequence : open) done.push_back(std::move(sequence));
  return done;
}

std::vector<int64_t> ShuffledOrder(int64_t n, uint64_t seed) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::mt19937_64 random(seed);
  for (int64_t i = n - 1; i > 0; --i) {
    const uint64_t j = random() % static_cast<uint64_t>(i + 1);
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(j)]);
  }
  return order;
}

std::vector<SegmentBucket> BucketSegments(const PackedSequence& sequence) {
  std::map<int64_t, std::vector<int64_t>> by_length;
  for (int64_t s = 0; s < sequence.segments(); ++s) {
    const int64_t length = sequence.segment_starts[static_cast<size_t>(s + 1)] -
                           sequence.segment_starts[static_cast<size_t>(s)];
    const int64_t padded =
        (length + kBucketTokens - 1) / kBucketTokens * kBucketTokens;
    by_length[padded].push_back(s);
  }
  std::vector<SegmentBucket> buckets;
  for (auto& [padded, segments] : by_length) {
    buckets.push_back({padded, std::move(segments)});
  }
  return buckets;
}

}  // namespace onegrid::finetuner
