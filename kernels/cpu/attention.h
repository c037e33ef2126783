#ifndef KERNELS_CPU_ATTENTION_H_
#define KERNELS_CPU_ATTENTION_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/kv_cache.h"

namespace onegrid::cpu {

// The queries of one sequence: q and out are [m, heads, head_dim]; row t stands
// at first_pos + t, which the cache already holds.
template <typename Cache>
struct AttendItem {
  const Cache* cache;
  const float* q;
  int64_t m;
  int64_t first_pos;  // first_pos + m <= cache->length()
  float* out;
};

struct AttendOptions {
  int64_t heads;   // A multiple of the caches' kv_heads.
  int64_t window;  // Keys a query sees, itself included; 0: all before it.
  float scale;     // Factor on q . k.
};

// Query head h reads key/value head h / (heads / kv_heads); the query at
// position p sees keys max(0, p - window + 1) .. p.
//
// Attention of one layer for several sequences in one parallel loop: blocks of
// queries that share a key/value head, and parts of the keys where there are
// fewer blocks than threads. Softmax runs online, part by part of kPartTokens
// keys, so the scratch does not grow with the context. A token's result has the
// same bits whatever the instruction set, the threads and the tokens beside it
// (kernels/reference/served_ops.h). All caches have the same heads and
// head_dim. Int8: rotated queries are rounded to int16, and so are the weights
// of a row in a part, so nearly all loss of precision is that of the cache.
// Scores and sums of values are integer dot products, the rest is f32.
void Attend(absl::Span<const AttendItem<KvInt8>> items,
            const AttendOptions& options, kernels::ThreadPool& pool,
            kernels::Isa isa = kernels::BestIsa());
void Attend(absl::Span<const AttendItem<KvF32>> items,
            const AttendOptions& options, kernels::ThreadPool& pool,
            kernels::Isa isa = kernels::BestIsa());
// The same bits as KvF32 gives for keys and values that bf16 holds.
void Attend(absl::Span<const AttendItem<KvBf16>> items,
            const AttendOptions& options, kernels::ThreadPool& pool,
            kernels::Isa isa = kernels::BestIsa());

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_ATTENTION_H_
