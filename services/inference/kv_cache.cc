#include "services/inference/kv_cache.h"

#include <algorithm>

namespace onegrid::inference {

KvCache::KvCache(const model::GemmaConfig& config, const Numerics& numerics,
                 int slots, int max_context, int max_rollback)
    : config_(config),
      numerics_(numerics),
      max_context_(max_context),
      max_rollback_(max_rollback),
      lengths_(slots, 0) {
  const int64_t count = config.layers * slots;
  for (int64_t i = 0; i < count; ++i) {
    if (numerics.kv_cache == Precision::kInt8) {
      int8_.emplace_back(Layout());
    } else {
      f32_.emplace_back(Layout());
    }
  }
}

cpu::KvLayout KvCache::Layout() const {
  return {config_.head_dim, config_.kv_heads, max_context_};
}

int64_t KvCache::Window(int64_t layer) const {
  return config_.IsGlobalLayer(layer) ? 0 : config_.sliding_window;
}

void KvCache::Reset(int slot) {
  lengths_[slot] = 0;
  for (int layer = 0; layer < config_.layers; ++layer) {
    const int64_t i = Index(layer, slot);
    if (numerics_.kv_cache == Precision::kInt8) {
      int8_[i] = cpu::KvInt8(Layout());
    } else {
      f32_[i] = cpu::KvF32(Layout());
    }
  }
}

void KvCache::Truncate(int slot, int length) {
  lengths_[slot] = length;
  for (int layer = 0; layer < config_.layers; ++layer) {
    const int64_t i = Index(layer, slot);
    if (numerics_.kv_cache == Precision::kInt8) {
      int8_[i].Truncate(length);
    } else {
      f32_[i].Truncate(length);
    }
  }
}

void KvCache::Copy(int from, int to) {
  if (from == to) return;
  lengths_[to] = lengths_[from];
  for (int layer = 0; layer < config_.layers; ++layer) {
    const int64_t i = Index(layer, to), j = Index(layer, from);
    if (numerics_.kv_cache == Precision::kInt8) {
      int8_[i].CopyFrom(int8_[j]);
    } else {
      f32_[i].CopyFrom(f32_[j]);
    }
  }
}

void KvCache::Append(cpu::KvInt8& cache, const float* k, const float* v,
                     int64_t tokens, kernels::ThreadPool& pool) const {
  cache.Append(k, v, tokens, pool, numerics_.isa);
}

void KvCache::Append(cpu::KvF32& cache, const float* k, const float* v,
                     int64_t tokens, kernels::ThreadPool& pool) const {
  cache.Append(k, v, tokens, pool);
}

template <typename Cache>
void KvCache::Run(std::vector<Cache>& caches, int layer,
                  absl::Span<const KvRows> rows, const float* q, const float* k,
                  const float* v, float* out, kernels::ThreadPool& pool) {
  const int64_t q_width = config_.heads * config_.head_dim;
  const int64_t kv_width = config_.kv_heads * config_.head_dim;
  const int64_t window = Window(layer);
  std::vector<cpu::AttendItem<Cache>> items;
  int64_t row = 0;
  for (const KvRows& part : rows) {
    Cache& cache = caches[Index(layer, part.slot)];
    const int64_t first = lengths_[part.slot];
    Append(cache, k + row * kv_width, v + row * kv_width, part.count, pool);
    items.push_back(
        {&cache, q + row * q_width, part.count, first, out + row * q_width});
    row += part.count;
  }
  cpu::Attend(
      items,
      {config_.heads, window, static_cast<float>(config_.attention_scale)},
      pool, numerics_.isa);
  if (window == 0) return;
  for (const KvRows& part : rows) {
    // The next query sees positions next - window + 1 and later.
    const int64_t next = lengths_[part.slot] + part.count - max_rollback_;
    caches[Index(layer, part.slot)].ReleaseBefore(
        std::max<int64_t>(0, next - window + 1));
  }
}

void KvCache::AppendAndAttend(int layer, absl::Span<const KvRows> rows,
                              const float* q, const float* k, const float* v,
                              float* out, kernels::ThreadPool& pool) {
  if (numerics_.kv_cache == Precision::kInt8) {
    Run(int8_, layer, rows, q, k, v, out, pool);
  } else {
    Run(f32_, layer, rows, q, k, v, out, pool);
  }
}

void KvCache::Advance(absl::Span<const KvRows> rows) {
  for (const KvRows& part : rows) lengths_[part.slot] += part.count;
}

int64_t KvCache::bytes() const {
  int64_t sum = 0;
  for (const cpu::KvInt8& cache : int8_) sum += cache.bytes();
  for (const cpu::KvF32& cache : f32_) sum += cache.bytes();
  return sum;
}

int64_t KvCache::TokenBytes() const {
  const int64_t head_dim = config_.head_dim;
  return config_.kv_heads * (numerics_.kv_cache == Precision::kInt8
                                 ? 2 * head_dim + 4 + head_dim / 32 * 4
                                 : 2 * head_dim * 4);
}

int64_t KvCache::bytes_read(int64_t position) const {
  int64_t tokens = 0;
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    const int64_t window = Window(layer);
    tokens += window == 0 ? position + 1 : std::min(position + 1, window);
  }
  return tokens * TokenBytes();
}

int64_t KvCache::bytes_max(int max_step_tokens) const {
  int64_t tokens = 0;
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    const int64_t window = Window(layer);
    // A window that begins inside a page keeps that page whole.
    const int64_t held =
        window == 0 ? max_context_
                    : std::min<int64_t>(max_context_, window + max_step_tokens +
                                                          max_rollback_ +
                                                          cpu::kPageTokens);
    tokens +=
        (held + cpu::kPageTokens - 1) / cpu::kPageTokens * cpu::kPageTokens;
  }
  return tokens * TokenBytes() * slots();
}

}  // namespace onegrid::inference
