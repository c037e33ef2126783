#include "services/inference/kv_room.h"

#include <algorithm>

#include "kernels/cpu/kv_cache.h"

namespace onegrid::inference {

using cpu::kPageTokens;

KvRoom::KvRoom(Engine& engine, int64_t limit)
    : engine_(engine), limit_(limit > 0 ? limit : DefaultLimit(engine)) {
  BeginStep();
}

int64_t KvRoom::DefaultLimit(const Engine& engine) {
  return engine.kv_bytes_max() + engine.options().prefix_bytes;
}

bool KvRoom::FitsAlone(int64_t tokens) const {
  return engine_.sequence_bytes_max(tokens) <= limit_;
}

int64_t KvRoom::most_tokens() const {
  int64_t fits = 0, too_many = int64_t{engine_.options().max_context} + 1;
  while (fits + 1 < too_many) {
    const int64_t middle = (fits + too_many) / 2;
    (FitsAlone(middle) ? fits : too_many) = middle;
  }
  return fits;
}

void KvRoom::BeginStep() {
  taken_bytes_ = 0;
  covered_.clear();
  for (int slot = 0; slot < engine_.options().max_sequences; ++slot) {
    const int64_t pages =
        (engine_.length(slot) + kPageTokens - 1) / kPageTokens;
    covered_.push_back(pages * kPageTokens);
  }
}

bool KvRoom::TakeBytes(int64_t bytes) {
  KvCache& cache = engine_.kv_cache();
  const int64_t over = cache.bytes() + taken_bytes_ + bytes - limit_;
  if (over > 0) cache.GiveUpPrefixes(over);
  if (cache.bytes() + taken_bytes_ + bytes > limit_) return false;
  taken_bytes_ += bytes;
  return true;
}

int KvRoom::Take(int slot, int count) {
  const int64_t length = engine_.length(slot);
  int64_t& covered = covered_[static_cast<size_t>(slot)];
  while (covered < length + count &&
         TakeBytes(engine_.kv_cache().block_bytes())) {
    covered += kPageTokens;
  }
  return static_cast<int>(std::min<int64_t>(count, covered - length));
}

bool KvRoom::Fits(const std::vector<Growth>& growths,
                  const std::vector<int>& freed) const {
  const KvCache& cache = engine_.kv_cache();
  int64_t wanted = cache.bytes();
  for (const int slot : freed) wanted -= cache.slot_bytes(slot);
  for (const Growth& growth : growths) {
    const int64_t held =
        growth.slot == kNoSlot ? 0 : cache.slot_bytes(growth.slot);
    wanted +=
        std::max<int64_t>(0, engine_.sequence_bytes_max(growth.tokens) - held);
  }
  // Prefixes are counted only where they matter.
  return wanted <= limit_ || wanted - cache.idle_prefix_bytes() <= limit_;
}

bool KvRoom::HasBlock() const {
  const KvCache& cache = engine_.kv_cache();
  return cache.bytes() + cache.block_bytes() <= limit_;
}

}  // namespace onegrid::inference
