#include "services/inference/kv_cache.h"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"

namespace onegrid::inference {
namespace {

// Sequences whose token a thread appends, at least: each takes some 2 us, as
// long as threads need to share a loop.
constexpr int64_t kLeastAppends = 2;

bool HasSlidingLayer(const model::GemmaConfig& config) {
  for (int64_t layer = 0; layer < config.layer_count(); ++layer) {
    if (config.HasKv(layer) && !config.IsGlobalLayer(layer)) return true;
  }
  return false;
}

}  // namespace

KvCache::KvCache(const model::GemmaConfig& config, const Numerics& numerics,
                 int slots, int max_context, int max_rollback,
                 int64_t prefix_bytes)
    : config_(config),
      numerics_(numerics),
      max_context_(max_context),
      max_rollback_(max_rollback),
      lengths_(slots, 0),
      prefixes_(prefix_bytes,
                HasSlidingLayer(config) ? config.sliding_window : 0),
      shared_(slots) {
  switch (numerics.kv_cache) {
    case Precision::kInt8:
      caches_.emplace<std::vector<cpu::KvInt8>>();
      break;
    case Precision::kF32:
      caches_.emplace<std::vector<cpu::KvF32>>();
      break;
    case Precision::kBf16:
      caches_.emplace<std::vector<cpu::KvBf16>>();
      break;
  }
  for (int64_t layer = 0; layer < config.layer_count(); ++layer) {
    std::visit(
        [&](auto& caches) {
          for (int slot = 0; slot < slots; ++slot) {
            caches.emplace_back(Layout(layer));
          }
        },
        caches_);
    if (config.HasKv(layer)) {
      block_bytes_ += cpu::kPageTokens * TokenBytes(layer);
    }
  }
}

cpu::KvLayout KvCache::Layout(int64_t layer) {
  const model::GemmaLayer& shape = config_.layers[layer];
  return {shape.head_dim, shape.kv_heads, max_context_, &bytes_held_};
}

int64_t KvCache::Window(int64_t layer) const {
  return config_.IsGlobalLayer(layer) ? 0 : config_.sliding_window;
}

template <typename Use>
void KvCache::ForEachLayer(int slot, Use use) {
  std::visit(
      [&](auto& caches) {
        for (int layer = 0; layer < config_.layer_count(); ++layer) {
          if (config_.HasKv(layer)) use(caches[Index(layer, slot)], layer);
        }
      },
      caches_);
}

const cpu::KvPages& KvCache::Pages(int layer, int slot) const {
  return std::visit(
      [&](const auto& caches) -> const cpu::KvPages& {
        return caches[Index(layer, slot)];
      },
      caches_);
}

cpu::KvPages& KvCache::Pages(int layer, int slot) {
  return const_cast<cpu::KvPages&>(std::as_const(*this).Pages(layer, slot));
}

KvBlock KvCache::BlockOf(int slot, int64_t block) {
  KvBlock pages;
  for (int layer = 0; layer < config_.layer_count(); ++layer) {
    if (!config_.HasKv(layer)) continue;
    (config_.IsGlobalLayer(layer) ? pages.global : pages.sliding)
        .push_back(Pages(layer, slot).FullPage(block));
  }
  return pages;
}

void KvCache::UseBlock(int slot, int64_t block, const KvBlock& pages) {
  size_t global = 0, sliding = 0;  // layers of each kind so far
  for (int layer = 0; layer < config_.layer_count(); ++layer) {
    if (!config_.HasKv(layer)) continue;
    const bool is_global = config_.IsGlobalLayer(layer);
    const size_t place = is_global ? global++ : sliding++;
    const std::vector<cpu::KvPage>& same =
        is_global ? pages.global : pages.sliding;
    cpu::KvPages& own = Pages(layer, slot);
    // Pages that the window has passed stay away.
    if (same.empty() || own.FullPage(block) == nullptr) continue;
    own.Replace(block, same[place]);
  }
}

int KvCache::Restore(int slot, absl::Span<const int32_t> tokens,
                     absl::string_view salt, bool with_tail) {
  PrefixCache::Match match = prefixes_.Find(tokens, salt, with_tail);
  const auto blocks = static_cast<int64_t>(match.blocks.size());
  int64_t length = blocks * cpu::kPageTokens;
  if (match.tail_tokens > 0) {
    length += match.tail_tokens;
    match.blocks.push_back(std::move(match.tail));
  }
  size_t global = 0, sliding = 0;  // layers of each kind so far
  for (int layer = 0; layer < config_.layer_count(); ++layer) {
    if (!config_.HasKv(layer)) continue;
    const bool is_global = config_.IsGlobalLayer(layer);
    const size_t place = is_global ? global++ : sliding++;
    std::vector<cpu::KvPage> pages;
    for (const KvBlock& block : match.blocks) {
      const std::vector<cpu::KvPage>& held =
          is_global ? block.global : block.sliding;
      pages.push_back(held.empty() ? nullptr : held[place]);
    }
    Pages(layer, slot).Adopt(std::move(pages));
    // Copies the page of the tail, which others have, too.
    Pages(layer, slot).Truncate(length);
  }
  shared_[slot] = {blocks, match.last, std::string(salt)};
  lengths_[slot] = static_cast<int>(length);
  return lengths_[slot];
}

void KvCache::Share(int slot, absl::Span<const int32_t> tokens) {
  Shared& shared = shared_[slot];
  const int64_t blocks = lengths_[slot] / cpu::kPageTokens;
  if (prefixes_.max_bytes() == 0) return;
  while (shared.blocks < blocks && prefixes_.Holds(shared.last)) {
    const auto begin = static_cast<size_t>(shared.blocks * cpu::kPageTokens);
    shared.last =
        prefixes_.Add(shared.last, tokens.subspan(begin, cpu::kPageTokens),
                      BlockOf(slot, shared.blocks), shared.salt);
    if (const KvBlock* kept = prefixes_.Pages(shared.last)) {
      UseBlock(slot, shared.blocks, *kept);
    }
    ++shared.blocks;
  }
}

void KvCache::Reset(int slot) {
  lengths_[slot] = 0;
  shared_[slot] = {};
  ForEachLayer(slot, [this](auto& cache, int layer) {
    cache = std::decay_t<decltype(cache)>(Layout(layer));
  });
}

void KvCache::Truncate(int slot, int length) {
  lengths_[slot] = length;
  // Blocks that were shared with the tokens taken back are not this sequence's.
  if (shared_[slot].blocks > length / cpu::kPageTokens) shared_[slot].last = -1;
  ForEachLayer(slot, [length](auto& cache, int) { cache.Truncate(length); });
}

void KvCache::Copy(int from, int to) {
  if (from == to) return;
  lengths_[to] = lengths_[from];
  // Its pages are its own, so nothing can be shared behind the other's.
  shared_[to] = {shared_[from].blocks, -1, shared_[from].salt};
  for (int layer = 0; layer < config_.layer_count(); ++layer) {
    if (!config_.HasKv(layer)) continue;
    Pages(layer, to).CopyFrom(Pages(layer, from));
  }
}

template <typename Cache>
void KvCache::AppendTo(std::vector<Cache>& caches, int layer,
                       absl::Span<const KvRows> rows, const float* k,
                       const float* v, kernels::ThreadPool& pool) {
  const model::GemmaLayer& shape = config_.layers[layer];
  const int64_t width = shape.kv_heads * shape.head_dim;
  const auto append = [&](const KvRows& part, int64_t first) {
    Cache& cache = caches[static_cast<size_t>(Index(layer, part.slot))];
    const float* keys = k + first * width;
    const float* values = v + first * width;
    if constexpr (std::is_same_v<Cache, cpu::KvInt8>) {
      cache.Append(keys, values, part.count, pool, numerics_.isa);
    } else {
      cache.Append(keys, values, part.count, pool);
    }
  };
  const auto one_token = [](const KvRows& part) { return part.count == 1; };
  if (!absl::c_all_of(rows, one_token)) {
    int64_t first = 0;
    for (const KvRows& part : rows) {
      append(part, first);  // Threads share its tokens.
      first += part.count;
    }
    return;
  }
  // Pages are made by one thread.
  for (const KvRows& part : rows) {
    caches[static_cast<size_t>(Index(layer, part.slot))].Reserve(1);
  }
  const auto parts = static_cast<int64_t>(rows.size());
  pool.ParallelFor(parts,
                   std::max(kLeastAppends, (parts - 1) / pool.size() + 1),
                   [&](int64_t begin, int64_t end, int) {
                     for (int64_t i = begin; i < end; ++i) {
                       append(rows[static_cast<size_t>(i)], i);
                     }
                   });
}

void KvCache::Append(int layer, absl::Span<const KvRows> rows, const float* k,
                     const float* v, kernels::ThreadPool& pool) {
  std::visit([&](auto& caches) { AppendTo(caches, layer, rows, k, v, pool); },
             caches_);
}

template <typename Cache>
void KvCache::AttendTo(const std::vector<Cache>& caches, int layer,
                       absl::Span<const KvRows> rows, const float* q,
                       float* out, kernels::ThreadPool& pool) {
  const model::GemmaLayer& shape = config_.layers[layer];
  const int64_t width = config_.heads * shape.head_dim;
  const int source = static_cast<int>(shape.kv_source);
  std::vector<cpu::AttendItem<Cache>> items;
  int64_t row = 0;
  for (const KvRows& part : rows) {
    items.push_back({&caches[Index(source, part.slot)], q + row * width,
                     part.count, lengths_[part.slot] + part.skip,
                     out + row * width});
    row += part.count;
  }
  cpu::Attend(items,
              {config_.heads, Window(layer),
               static_cast<float>(config_.attention_scale)},
              pool, numerics_.isa);
}

void KvCache::Attend(int layer, absl::Span<const KvRows> rows, const float* q,
                     float* out, kernels::ThreadPool& pool) {
  std::visit(
      [&](const auto& caches) { AttendTo(caches, layer, rows, q, out, pool); },
      caches_);
}

void KvCache::Advance(absl::Span<const KvRows> rows) {
  for (const KvRows& part : rows) {
    lengths_[part.slot] += part.count;
    // The next query sees positions next - window + 1 and later.
    const int64_t next = lengths_[part.slot] - max_rollback_;
    ForEachLayer(part.slot, [&](auto& cache, int layer) {
      const int64_t window = Window(layer);
      if (window == 0) return;
      cache.ReleaseBefore(std::max<int64_t>(0, next - window + 1));
    });
  }
}

int64_t KvCache::slot_bytes(int slot) const {
  int64_t sum = 0;
  for (int layer = 0; layer < config_.layer_count(); ++layer) {
    sum += Pages(layer, slot).bytes();
  }
  return sum;
}

int64_t KvCache::TokenBytes(int64_t layer) const {
  const int64_t head_dim = config_.layers[layer].head_dim;
  const int64_t kv_heads = config_.layers[layer].kv_heads;
  switch (numerics_.kv_cache) {
    case Precision::kInt8:
      return kv_heads * cpu::KvInt8::TokenBytes(head_dim);
    case Precision::kF32:
      return kv_heads * 2 * head_dim * 4;
    case Precision::kBf16:
      break;
  }
  return kv_heads * 2 * head_dim * 2;
}

int64_t KvCache::bytes_read(int64_t position) const {
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < config_.layer_count(); ++layer) {
    const int64_t window = Window(layer);
    bytes += TokenBytes(layer) *
             (window == 0 ? position + 1 : std::min(position + 1, window));
  }
  return bytes;
}

int64_t KvCache::sequence_bytes_max(int64_t tokens, int max_step_tokens) const {
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < config_.layer_count(); ++layer) {
    if (!config_.HasKv(layer)) continue;
    const int64_t window = Window(layer);
    // A window that begins inside a page keeps that page whole.
    const int64_t held =
        window == 0
            ? tokens
            : std::min<int64_t>(tokens, window + max_step_tokens +
                                            max_rollback_ + cpu::kPageTokens);
    bytes += (held + cpu::kPageTokens - 1) / cpu::kPageTokens *
             cpu::kPageTokens * TokenBytes(layer);
  }
  return bytes;
}

}  // namespace onegrid::inference
