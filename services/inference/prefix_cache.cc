#include "services/inference/prefix_cache.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "kernels/base/check.h"

namespace onegrid::inference {

using cpu::kPageTokens;

PrefixCache::PrefixCache(int64_t max_bytes, int64_t window)
    : max_bytes_(max_bytes), window_(window) {}

int64_t PrefixCache::BytesOf(const std::vector<cpu::KvPage>& pages) {
  int64_t bytes = 0;
  for (const cpu::KvPage& page : pages) {
    if (page != nullptr) bytes += static_cast<int64_t>(page->size());
  }
  return bytes;
}

bool PrefixCache::InUse(const std::vector<cpu::KvPage>& pages) {
  return std::any_of(pages.begin(), pages.end(), [](const cpu::KvPage& page) {
    return page.use_count() > 1;
  });
}

std::vector<PrefixCache::BlockId> PrefixCache::Walk(
    absl::Span<const int32_t> tokens, absl::string_view salt) const {
  std::vector<BlockId> path;
  Key key = {kRoot, std::string(salt), {}};
  for (size_t begin = 0; begin + kPageTokens <= tokens.size();
       begin += kPageTokens) {
    const absl::Span<const int32_t> part = tokens.subspan(begin, kPageTokens);
    std::get<2>(key).assign(part.begin(), part.end());
    const auto found = ids_.find(key);
    if (found == ids_.end()) break;
    path.push_back(found->second);
    std::get<0>(key) = found->second;
    std::get<1>(key).clear();
  }
  return path;
}

int64_t PrefixCache::WindowBegin(int64_t blocks) const {
  if (window_ == 0) return blocks;
  // The next query, at this position, sees window - 1 tokens before it.
  const int64_t position = blocks * kPageTokens;
  return std::max<int64_t>(0, position - window_ + 1) / kPageTokens;
}

int64_t PrefixCache::UsableBlocks(const std::vector<BlockId>& path) const {
  const auto has_sliding = [&](int64_t block) {
    return !entries_.at(path[static_cast<size_t>(block)])
                ->pages.sliding.empty();
  };
  int64_t blocks = static_cast<int64_t>(path.size());
  int64_t gap = blocks - 1;
  for (; blocks > 0; --blocks) {
    gap = std::min(gap, blocks - 1);
    const int64_t begin = WindowBegin(blocks);
    while (gap >= begin && has_sliding(gap)) --gap;
    if (gap < begin) break;
  }
  return blocks;
}

void PrefixCache::LookForTail(absl::Span<const int32_t> rest,
                              absl::string_view salt, Place* place) const {
  // Siblings are looked at as long as they have no window, but not all of them.
  constexpr int kMostSiblings = 64;
  const BlockId parent = place->path.empty() ? kRoot : place->path.back();
  rest = rest.first(std::min<size_t>(rest.size(), kPageTokens));
  const Key key = {parent,
                   parent == kRoot ? std::string(salt) : std::string(),
                   {rest.begin(), rest.end()}};
  int siblings = 0;
  // False: what lies further away has no more in common with `rest`.
  const auto consider = [&](const auto& candidate) {
    const auto& [its_parent, its_salt, tokens] = candidate->first;
    if (its_parent != parent || its_salt != std::get<1>(key)) return false;
    const int64_t common =
        std::mismatch(rest.begin(), rest.end(), tokens.begin(), tokens.end())
            .first -
        rest.begin();
    if (common < std::max(kLeastTail, place->tail_tokens + 1)) return false;
    const KvBlock& pages = entries_.at(candidate->second)->pages;
    if (window_ > 0 && pages.sliding.empty()) {
      return ++siblings < kMostSiblings;
    }
    place->tail_tokens = common;
    place->tail = candidate->second;
    return false;
  };
  const auto middle = ids_.lower_bound(key);
  for (auto i = middle; i != ids_.end() && consider(i); ++i) continue;
  for (auto i = middle; i != ids_.begin() && consider(std::prev(i)); --i) {
    continue;
  }
}

PrefixCache::Place PrefixCache::Look(absl::Span<const int32_t> tokens,
                                     absl::string_view salt,
                                     bool with_tail) const {
  Place place{Walk(tokens, salt)};
  const auto blocks = static_cast<size_t>(UsableBlocks(place.path));
  if (with_tail && blocks == place.path.size()) {
    LookForTail(tokens.subspan(blocks * kPageTokens), salt, &place);
  }
  place.path.resize(blocks);
  return place;
}

int64_t PrefixCache::Count(absl::Span<const int32_t> tokens,
                           absl::string_view salt, bool with_tail) const {
  const Place place = Look(tokens, salt, with_tail);
  return static_cast<int64_t>(place.path.size()) * kPageTokens +
         place.tail_tokens;
}

PrefixCache::Match PrefixCache::Find(absl::Span<const int32_t> tokens,
                                     absl::string_view salt, bool with_tail) {
  const Place place = Look(tokens, salt, with_tail);
  const auto blocks = static_cast<int64_t>(place.path.size());
  const int64_t window_begin = WindowBegin(blocks);
  Match match;
  for (int64_t i = 0; i < blocks; ++i) {
    Entry& entry = *entries_.at(place.path[static_cast<size_t>(i)]);
    KvBlock block{entry.pages.global, {}};
    if (i >= window_begin) {
      block.sliding = entry.pages.sliding;
      uses_.splice(uses_.begin(), uses_, entry.sliding_use);
    }
    match.blocks.push_back(std::move(block));
  }
  if (blocks > 0) match.last = place.path.back();
  Touch(match.last);
  if (place.tail == kRoot) return match;
  Entry& entry = *entries_.at(place.tail);
  match.tail = entry.pages;
  match.tail_tokens = place.tail_tokens;
  if (window_ > 0) uses_.splice(uses_.begin(), uses_, entry.sliding_use);
  Touch(place.tail);
  return match;
}

void PrefixCache::SetSliding(BlockId id, std::vector<cpu::KvPage> pages) {
  Entry& entry = *entries_.at(id);
  const bool whole =
      std::all_of(pages.begin(), pages.end(),
                  [](const cpu::KvPage& page) { return page != nullptr; });
  if (pages.empty() || !whole || !entry.pages.sliding.empty()) return;
  bytes_ += BytesOf(pages);
  entry.pages.sliding = std::move(pages);
  uses_.push_front({id, true});
  entry.sliding_use = uses_.begin();
}

PrefixCache::BlockId PrefixCache::Add(BlockId parent,
                                      absl::Span<const int32_t> tokens,
                                      KvBlock block, absl::string_view salt) {
  KERNELS_CHECK(Holds(parent) && tokens.size() == kPageTokens);
  const Key key = {parent,
                   parent == kRoot ? std::string(salt) : std::string(),
                   {tokens.begin(), tokens.end()}};
  const auto [found, added] = ids_.try_emplace(key, next_id_);
  const BlockId id = found->second;
  if (added) {
    ++next_id_;
    auto entry = std::make_unique<Entry>();
    entry->key = key;
    entry->pages.global = std::move(block.global);
    bytes_ += BytesOf(entry->pages.global);
    uses_.push_front({id, false});
    entry->global_use = uses_.begin();
    entries_[id] = std::move(entry);
    if (parent != kRoot) ++entries_.at(parent)->children;
  }
  SetSliding(id, std::move(block.sliding));
  Touch(id);
  Shrink();
  return id;
}

void PrefixCache::Touch(BlockId id) {
  while (id != kRoot) {
    Entry& entry = *entries_.at(id);
    uses_.splice(uses_.begin(), uses_, entry.global_use);
    id = ParentOf(entry);
  }
}

void PrefixCache::ForgetSliding(Entry& entry) {
  if (entry.pages.sliding.empty()) return;
  bytes_ -= BytesOf(entry.pages.sliding);
  entry.pages.sliding.clear();
  uses_.erase(entry.sliding_use);
}

void PrefixCache::Forget(Part part) {
  Entry& entry = *entries_.at(part.id);
  ForgetSliding(entry);
  if (part.sliding) return;
  // Blocks are used with all before them, so the oldest has none behind it.
  KERNELS_CHECK(entry.children == 0);
  bytes_ -= BytesOf(entry.pages.global);
  uses_.erase(entry.global_use);
  if (ParentOf(entry) != kRoot) --entries_.at(ParentOf(entry))->children;
  ids_.erase(entry.key);
  entries_.erase(part.id);
}

const KvBlock* PrefixCache::Pages(BlockId id) const {
  const auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : &found->second->pages;
}

void PrefixCache::Shrink() {
  while (bytes_ > max_bytes_) Forget(uses_.back());
}

void PrefixCache::GiveUp(int64_t bytes) {
  const int64_t wanted = bytes_ - bytes;
  // A sequence that uses a block uses all before it, so what follows a block
  // that nobody uses has been given up when its turn comes.
  auto use = uses_.end();
  while (bytes_ > wanted && use != uses_.begin()) {
    const auto candidate = std::prev(use);
    const Entry& entry = *entries_.at(candidate->id);
    const KvBlock& pages = entry.pages;
    if (candidate->sliding ? InUse(pages.sliding)
                           : InUse(pages.global) || entry.children > 0) {
      use = candidate;
      continue;
    }
    // The sliding part of a block may go with it, and `use` be that part.
    if (!candidate->sliding && !pages.sliding.empty() &&
        use == entry.sliding_use) {
      ++use;
    }
    Forget(*candidate);
  }
}

int64_t PrefixCache::idle_bytes() const {
  int64_t bytes = 0;
  for (const auto& [id, entry] : entries_) {
    if (!InUse(entry->pages.global)) bytes += BytesOf(entry->pages.global);
    if (!InUse(entry->pages.sliding)) bytes += BytesOf(entry->pages.sliding);
  }
  return bytes;
}

}  // namespace onegrid::inference
