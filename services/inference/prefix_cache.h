// Keys and values of tokens that sequences began with before, to be shared by
// those that begin with the same.
#ifndef SERVICES_INFERENCE_PREFIX_CACHE_H_
#define SERVICES_INFERENCE_PREFIX_CACHE_H_

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
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
// before it, compared one by one, never by a digest alone; sequences of
// different salts have no blocks in common. Past its limit of bytes it gives up
// what was not used for longest: pages of sliding layers by themselves, a block
// only after all that follow it.
// Thread-compatible.
class PrefixCache {
 public:
  using BlockId = int64_t;
  static constexpr BlockId kRoot = 0;  // before the first block

  // max_bytes: of pages held, those that sequences use, too, included; 0 holds
  // nothing. window: the most tokens that a query of a sliding layer sees, its
  // own included; 0: there are no such layers.
  PrefixCache(int64_t max_bytes, int64_t window);

  // Fewer tokens of a block are not worth a copy of it.
  static constexpr int64_t kLeastTail = 8;

  struct Match {
    std::vector<KvBlock> blocks;  // sliding: as the window needs
    BlockId last = kRoot;
    // A block that begins with the next tail_tokens tokens and goes on
    // otherwise: kLeastTail to kPageTokens - 1, or 0 and no block.
    KvBlock tail;
    int64_t tail_tokens = 0;
  };
  // The most blocks at the start of `tokens` that a sequence can go on behind,
  // and with_tail: the tail behind them that has most of `tokens`. They count
  // as used.
  Match Find(absl::Span<const int32_t> tokens, absl::string_view salt = "",
             bool with_tail = false);
  // How many tokens Find would find.
  int64_t Count(absl::Span<const int32_t> tokens, absl::string_view salt,
                bool with_tail) const;

  // Holds the block of `tokens` (kPageTokens) that follows `parent`, of which
  // Holds is true, or what it lacked of it. The salt matters behind kRoot only.
  // Returns its id, which this Add or any later call may forget.
  BlockId Add(BlockId parent, absl::Span<const int32_t> tokens, KvBlock block,
              absl::string_view salt = "");
  bool Holds(BlockId id) const { return id == kRoot || entries_.contains(id); }
  // What is held of a block, which a sequence that adds others behind it has to
  // use, too; null if it was given up.
  const KvBlock* Pages(BlockId id) const;

  // Gives up at least `bytes` of the pages that no sequence uses, if there are
  // as many, those that were not used for longest first.
  void GiveUp(int64_t bytes);

  int64_t max_bytes() const { return max_bytes_; }
  int64_t bytes() const { return bytes_; }
  // Bytes of the pages that no sequence uses. O(pages).
  int64_t idle_bytes() const;

 private:
  // What is given up at once.
  struct Part {
    BlockId id;
    bool sliding;
  };
  using Uses = std::list<Part>;  // the last used first
  // The parent, the salt if that is kRoot, the block's tokens.
  using Key = std::tuple<BlockId, std::string, std::vector<int32_t>>;
  struct Entry {
    Key key;
    KvBlock pages;
    int children = 0;
    Uses::iterator global_use;
    Uses::iterator sliding_use;  // if pages.sliding is not empty
  };

  static int64_t BytesOf(const std::vector<cpu::KvPage>& pages);
  // Whether sequences hold some of the pages, too.
  static bool InUse(const std::vector<cpu::KvPage>& pages);
  static BlockId ParentOf(const Entry& entry) { return std::get<0>(entry.key); }
  // Ids of what Find finds.
  struct Place {
    std::vector<BlockId> path;  // of the blocks
    BlockId tail = kRoot;       // kRoot: none
    int64_t tail_tokens = 0;
  };
  Place Look(absl::Span<const int32_t> tokens, absl::string_view salt,
             bool with_tail) const;
  // Ids of the blocks that `tokens` begin with.
  std::vector<BlockId> Walk(absl::Span<const int32_t> tokens,
                            absl::string_view salt) const;
  // How many of the path's blocks have no gap in the window behind them.
  int64_t UsableBlocks(const std::vector<BlockId>& path) const;
  // The tail of which most tokens are those of `rest`, which follow the path.
  void LookForTail(absl::Span<const int32_t> rest, absl::string_view salt,
                   Place* place) const;
  // First block of which a query behind `blocks` blocks sees sliding pages.
  int64_t WindowBegin(int64_t blocks) const;
  void SetSliding(BlockId id, std::vector<cpu::KvPage> pages);
  // Counts the block and those before it as used, it the least.
  void Touch(BlockId id);
  void ForgetSliding(Entry& entry);
  // Gives up the pages of sliding layers, or the block.
  void Forget(Part part);
  void Shrink();

  const int64_t max_bytes_;
  const int64_t window_;
  int64_t bytes_ = 0;
  BlockId next_id_ = kRoot + 1;
  absl::flat_hash_map<BlockId, std::unique_ptr<Entry>> entries_;
  absl::btree_map<Key, BlockId> ids_;
  Uses uses_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_PREFIX_CACHE_H_
