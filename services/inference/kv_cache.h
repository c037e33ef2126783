// The keys and values of every sequence, in every layer.
#ifndef SERVICES_INFERENCE_KV_CACHE_H_
#define SERVICES_INFERENCE_KV_CACHE_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/kv_cache.h"
#include "services/inference/numerics.h"
#include "services/inference/prefix_cache.h"
#include "services/model/gemma_config.h"

namespace onegrid::inference {

// The rows of one sequence in a step.
struct KvRows {
  int slot;   // 0..slots-1
  int count;  // new tokens, at the positions length(slot) + skip and following
  int skip = 0;  // tokens before them in the same step
};

// One slot holds one sequence. Memory is taken page by page as sequences grow;
// in sliding layers pages the window has passed are given back. Layers that
// attend to another's keys and values hold none.
// Thread-compatible.
class KvCache {
 public:
  // Sequences of at most `max_context` tokens, of which Truncate takes back at
  // most `max_rollback`. prefix_bytes: of what Share keeps for later sequences.
  KvCache(const model::GemmaConfig& config, const Numerics& numerics, int slots,
          int max_context, int max_rollback, int64_t prefix_bytes = 0);
  // The pages know where they are counted.
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  int slots() const { return static_cast<int>(lengths_.size()); }
  // Tokens the slot's sequence holds.
  int length(int slot) const { return lengths_[slot]; }
  // Empties the slot and gives its memory back.
  void Reset(int slot);

  // Makes the empty slot's sequence begin as a shared one of the same salt
  // does, with as many of `tokens` as there are: in whole pages, and if
  // `with_tail`, behind them in a copy of a page that begins with the next
  // tokens, which takes block_bytes. Returns how many.
  int Restore(int slot, absl::Span<const int32_t> tokens,
              absl::string_view salt = "", bool with_tail = false);
  // How many tokens Restore would find.
  int64_t CountKept(absl::Span<const int32_t> tokens, absl::string_view salt,
                    bool with_tail) const {
    return prefixes_.Count(tokens, salt, with_tail);
  }
  // Keeps the slot's full pages for Restore. tokens: the sequence's, at least
  // those of its full pages. A page that is kept already takes the place of the
  // slot's own. Costs little where no page was filled since.
  void Share(int slot, absl::Span<const int32_t> tokens);
  // Gives up at least `bytes` of what Share keeps and no sequence uses, if
  // there are as many.
  void GiveUpPrefixes(int64_t bytes) { prefixes_.GiveUp(bytes); }
  // Bytes of what Share keeps, pages that sequences use, too, included; and
  // without those. The latter is O(pages).
  int64_t prefix_bytes() const { return prefixes_.bytes(); }
  int64_t idle_prefix_bytes() const { return prefixes_.idle_bytes(); }

  // Takes back the tokens from `length` on; at most max_rollback since the
  // slot's sequence was longest.
  void Truncate(int slot, int length);

  // Makes slot `to` hold the same sequence as `from`, in own memory.
  void Copy(int from, int to);

  // Adds k, v [M, kv_heads, head_dim] to `layer`, which has keys and values of
  // its own. M is the sum of the counts, each slot appears once, none skips.
  void Append(int layer, absl::Span<const KvRows> rows, const float* k,
              const float* v, kernels::ThreadPool& pool);

  // Attends with q [M, heads, head_dim] of `layer` to all that its keys' layer
  // holds, this step's tokens included; out: [M, heads, head_dim].
  void Attend(int layer, absl::Span<const KvRows> rows, const float* q,
              float* out, kernels::ThreadPool& pool);

  // Ends a step of `rows`, none of which skips: the new tokens, appended to
  // every layer by now, become part of their sequences.
  void Advance(absl::Span<const KvRows> rows);

  // Bytes of all pages held now, those that several sequences or Share use
  // counted once; those of the slot's sequence; and those that each
  // kPageTokens tokens appended to a sequence take first.
  int64_t bytes() const { return bytes_held_; }
  int64_t slot_bytes(int slot) const;
  int64_t block_bytes() const { return block_bytes_; }
  // The most that a sequence of `tokens` tokens can take while it grows by at
  // most max_step_tokens in a step, and full sequences in all slots.
  int64_t sequence_bytes_max(int64_t tokens, int max_step_tokens) const;
  int64_t bytes_max(int max_step_tokens) const {
    return slots() * sequence_bytes_max(max_context_, max_step_tokens);
  }
  // Bytes of the keys and values that a query at `position` attends to.
  int64_t bytes_read(int64_t position) const;

 private:
  template <typename Cache>
  void AppendTo(std::vector<Cache>& caches, int layer,
                absl::Span<const KvRows> rows, const float* k, const float* v,
                kernels::ThreadPool& pool);
  template <typename Cache>
  void AttendTo(const std::vector<Cache>& caches, int layer,
                absl::Span<const KvRows> rows, const float* q, float* out,
                kernels::ThreadPool& pool);
  // Calls use(cache) for the slot's cache in each layer that has one.
  template <typename Use>
  void ForEachLayer(int slot, Use use);
  cpu::KvLayout Layout(int64_t layer);
  int64_t Index(int layer, int slot) const {
    return int64_t{layer} * slots() + slot;
  }
  // 0 in global layers.
  int64_t Window(int64_t layer) const;
  const cpu::KvPages& Pages(int layer, int slot) const;
  cpu::KvPages& Pages(int layer, int slot);
  // The pages of a block that the slot's sequence has.
  KvBlock BlockOf(int slot, int64_t block);
  // Makes the slot's sequence use these pages where it has a block's.
  void UseBlock(int slot, int64_t block, const KvBlock& pages);
  // Bytes of one token in one layer.
  int64_t TokenBytes(int64_t layer) const;

  const model::GemmaConfig config_;
  const Numerics numerics_;
  const int max_context_;
  const int max_rollback_;
  std::vector<int> lengths_;
  int64_t bytes_held_ = 0;  // outlives the pages
  int64_t block_bytes_ = 0;
  PrefixCache prefixes_;
  // How much of a slot's sequence is among the prefixes.
  struct Shared {
    int64_t blocks = 0;
    PrefixCache::BlockId last = PrefixCache::kRoot;
    std::string salt;
  };
  std::vector<Shared> shared_;  // [slots]
  // [layers, slots]. Layers without keys of their own have caches that stay
  // empty.
  std::variant<std::vector<cpu::KvInt8>, std::vector<cpu::KvF32>,
               std::vector<cpu::KvBf16>>
      caches_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_KV_CACHE_H_
