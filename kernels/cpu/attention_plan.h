#ifndef KERNELS_CPU_ATTENTION_PLAN_H_
#define KERNELS_CPU_ATTENTION_PLAN_H_

#include <cstdint>
#include <vector>

// How attention (attention.h) cuts its work. Not thread-safe to change; reading
// is.

namespace onegrid::cpu {

// What the queries of all items have in common. Positions and keys are counted
// from the first token of a sequence.
struct AttentionLayout {
  int64_t kv_heads;
  int64_t group;       // Query heads of a key/value head.
  int64_t window;      // Keys that a query sees, its own the last; 0: all.
  int64_t block_rows;  // Rows of a block, at most.

  int64_t FirstKey(int64_t position) const {
    return window <= 0 || position < window ? 0 : position - window + 1;
  }
};

// Up to block_rows (query, head) rows of one item that read one key/value head,
// and the pages of keys they see. Row r is query r / group, head r % group of
// the key/value head's query heads.
struct AttentionBlock {
  int64_t item;
  int64_t kv_head;
  int64_t first_row;
  int rows;
  int64_t first_page;
  int64_t end_page;
  int64_t first_part;  // Index of its parts.
  int64_t parts;
};

// One part of a block's keys: up to kPartPages pages. These are counted from
// the first key of the sequence, and the parts are joined in order. So a
// token's result does not depend on the threads or on the tokens that are
// computed with it.
struct AttentionPart {
  int64_t block;
  int64_t first_page;
  int64_t end_page;
};

class AttentionPlan {
 public:
  explicit AttentionPlan(const AttentionLayout& layout) : layout_(layout) {}

  // Queries [first_position, first_position + queries) of one more item:
  // queries >= 0.
  void Add(int64_t first_position, int64_t queries);

  const AttentionLayout& layout() const { return layout_; }
  // In the order of items, in these of key/value heads, in these of rows.
  const std::vector<AttentionBlock>& blocks() const { return blocks_; }
  // In the order of blocks, in these of keys.
  const std::vector<AttentionPart>& parts() const { return parts_; }

 private:
  void AddParts(int64_t block);

  AttentionLayout layout_;
  int64_t items_ = 0;
  std::vector<AttentionBlock> blocks_;
  std::vector<AttentionPart> parts_;
};

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_ATTENTION_PLAN_H_
