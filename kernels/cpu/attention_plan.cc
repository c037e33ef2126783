#include "kernels/cpu/attention_plan.h"

#include <algorithm>

#include "kernels/cpu/attention_kernels.h"

namespace onegrid::cpu {

void AttentionPlan::Add(int64_t first_position, int64_t queries) {
  const int64_t rows = queries * layout_.group;
  const auto position = [&](int64_t row) {
    return first_position + row / layout_.group;
  };
  for (int64_t head = 0; head < layout_.kv_heads; ++head) {
    for (int64_t row = 0; row < rows; row += layout_.block_rows) {
      const int64_t end = std::min(rows, row + layout_.block_rows);
      AttentionBlock block = {};
      block.item = items_;
      block.kv_head = head;
      block.first_row = row;
      block.rows = static_cast<int>(end - row);
      block.first_page = layout_.FirstKey(position(row)) / kPageTokens;
      block.end_page = position(end - 1) / kPageTokens + 1;
      blocks_.push_back(block);
      AddParts(static_cast<int64_t>(blocks_.size()) - 1);
    }
  }
  ++items_;
}

void AttentionPlan::AddParts(int64_t block_index) {
  AttentionBlock& block = blocks_[static_cast<size_t>(block_index)];
  block.first_part = static_cast<int64_t>(parts_.size());
  for (int64_t page = block.first_page; page < block.end_page;) {
    const int64_t end =
        std::min(block.end_page, (page / kPartPages + 1) * kPartPages);
    parts_.push_back({block_index, page, end});
    page = end;
  }
  block.parts = static_cast<int64_t>(parts_.size()) - block.first_part;
}

}  // namespace onegrid::cpu
