// Keys and values of tokens that sequences began with before, to be shared by
// those that begin with the same.
#ifndef SERVICES_INFERENCE_PREFIX_CACHE_H_
#define SERVICES_INFERENCE_PREFIX_CACHE_H_

#include <cstdint>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "kernels/cpu/kv_cache.h"

namespace onegrid::inference {

// kPageTokens tokens of one sequence: a page of each layer that has keys of its
// own, in order of the layers. Pages of sliding layers may be missing (null,
// or the list is empty): the window of most queries has passed them.
struct KvBlock {
  std::vector<cpu::KvPage> global;
  std::vector<cpu::KvPage> sliding;
};

// A tree of blocks: a block is known by its own tokens and those of all blocks
// before it, compared one by one, never by a digest alone. Past its limit of
// bytes it gives up what was not used for longest: pages of sliding layers by
// themselves, a block only after all that follow it.
// Thread-compatible.
class PrefixCache {
 public:
  using BlockId = int64_t;
  static constexpr BlockId kRoot = 0;  // before the first block

  // max_bytes: of pages held, those that sequences use, too, included; 0 holds
  // nothing. window: the most tokens that a query of a sliding layer sees, its
  // own included; 0: there are no such layers.
  PrefixCache(int64_t max_bytes, int64_t window);

  struct Match {
    std::vector<KvBlock> blocks;  // sliding: as the window needs
    BlockId last = kRoot;
  };
  // The most blocks at the start of `tokens` that a sequence can go on behind.
  // They count as used.
  Match Find(absl::Span<const int32_t> tokens);

  // Holds the block of `tokens` (kPageTokens) that follows `parent`, of which
  // Holds is true, or what it lacked of it. Returns its id, which this Add or
  // any later one may forget.
  BlockId Add(BlockId parent, absl::Span<const int32_t> tokens, KvBlock block);
  bool Holds(BlockId id) const { return id == kRoot || entries_.contains(id); }

  int64_t max_bytes() const { return max_bytes_; }
  int64_t bytes() const { return bytes_; }

 private:
  // What is given up at once.
  struct Part {
    BlockId id;
    bool sliding;
  };
  using Uses = std::list<Part>;  // the last used first
  struct Entry {
    BlockId parent;
    std::vector<int32_t> tokens;
    KvBlock pages;
    int children = 0;
    Uses::iterator global_use;
    Uses::iterator sliding_use;  // if pages.sliding is not empty
  };
  using Key = std::pair<BlockId, std::vector<int32_t>>;

  static int64_t BytesOf(const std::vector<cpu::KvPage>& pages);
  // Ids of the blocks that `tokens` begin with.
  std::vector<BlockId> Walk(absl::Span<const int32_t> tokens) const;
  // First block of which a query behind `blocks` blocks sees sliding pages.
  int64_t WindowBegin(int64_t blocks) const;
  void SetSliding(BlockId id, std::vector<cpu::KvPage> pages);
  // Counts the block and those before it as used, it the least.
  void Touch(BlockId id);
  void ForgetSliding(Entry& entry);
  void Shrink();

  const int64_t max_bytes_;
  const int64_t window_;
  int64_t bytes_ = 0;
  BlockId next_id_ = kRoot + 1;
  absl::flat_hash_map<BlockId, std::unique_ptr<Entry>> entries_;
  absl::flat_hash_map<Key, BlockId> ids_;
  Uses uses_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_PREFIX_CACHE_H_
