#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "kernels/base/aligned_buffer.h"
#include "kernels/base/check.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_plan.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/vector_kernels.h"

namespace onegrid::cpu {
namespace {

// Lower than any score.
constexpr float kLowestScore = -3.0e38f;
// What FloatKernels::bf16_expand widens at once.
constexpr int64_t kBf16ExpandFloats = kBf16GroupBytes / 2;

// Softmax state of a block's rows: running maximum, sum of exponentials and
// weighted sum of values [rows][d].
struct Partial {
  float* max;
  float* sum;
  float* values;
};

// Floats of the state of so many rows, whole cache lines.
constexpr int64_t PartialFloats(int64_t rows, int64_t d) {
  return rows * d + (2 * rows + 15) / 16 * 16;
}
Partial PartialAt(float* space, int64_t rows, int64_t d) {
  return {space + rows * d, space + rows * d + rows, space};
}

// The queries of a block, as the cache's score kernel wants them.
struct Int8Queries {
  alignas(64) int16_t codes[kMaxBlockQueryRows * kMaxHeadDim];
  float scales[kMaxBlockQueryRows];
};

struct F32Queries {
  alignas(64) float q[kMaxBlockQueryRows * kMaxHeadDim];
};

template <typename Cache>
class Attention {
 public:
  Attention(absl::Span<const AttendItem<Cache>> items,
            const AttendOptions& options, kernels::Isa isa)
      : items_(items),
        options_(options),
        d_(items[0].cache->layout().head_dim),
        floats_(FloatKernelsFor(isa)),
        vectors_(VectorKernelsFor(isa)),
        kernels_(AttentionKernelsFor(isa)),
        plan_(Layout()) {
    KERNELS_CHECK(options.heads == layout().group * layout().kv_heads);
    for (const AttendItem<Cache>& item : items) {
      KERNELS_CHECK(item.cache->layout().head_dim == d_);
      KERNELS_CHECK(item.cache->layout().kv_heads == layout().kv_heads);
      KERNELS_CHECK(item.first_pos >= 0 &&
                    item.first_pos + item.m <= item.cache->length());
      plan_.Add(item.first_pos, item.m);
    }
  }

  void Run(kernels::ThreadPool& pool) const {
    if (plan_.blocks().size() < static_cast<size_t>(pool.size())) {
      RunParts(pool);
    } else {
      RunBlocks(pool);
    }
  }

 private:
  using Block = AttentionBlock;
  using Part = AttentionPart;
  using Queries = std::conditional_t<std::is_same_v<Cache, KvInt8>, Int8Queries,
                                     F32Queries>;

  AttentionLayout Layout() const {
    const int64_t kv_heads = items_[0].cache->layout().kv_heads;
    return {kv_heads, options_.heads / kv_heads, options_.window,
            kernels_.block_rows};
  }
  const AttentionLayout& layout() const { return plan_.layout(); }
  const AttendItem<Cache>& ItemOf(const Block& block) const {
    return items_[static_cast<size_t>(block.item)];
  }
  int64_t Position(const Block& block, int64_t r) const {
    return ItemOf(block).first_pos + (block.first_row + r) / layout().group;
  }
  // Of the query of row r.
  int64_t FirstKey(const Block& block, int64_t r) const {
    return layout().FirstKey(Position(block, r));
  }
  // Offset of row r in q and out.
  int64_t RowOffset(const Block& block, int64_t r) const {
    const int64_t row = block.first_row + r;
    const int64_t head = block.kv_head * layout().group + row % layout().group;
    return (row / layout().group * options_.heads + head) * d_;
  }

  // A thread for each block.
  void RunBlocks(kernels::ThreadPool& pool) const {
    const std::vector<Block>& blocks = plan_.blocks();
    pool.ParallelFor(static_cast<int64_t>(blocks.size()), 1,
                     [&](int64_t begin, int64_t end, int) {
                       for (int64_t i = begin; i < end; ++i) {
                         RunBlock(blocks[static_cast<size_t>(i)]);
                       }
                     });
  }

  void RunBlock(const Block& block) const {
    const Part* part = &plan_.parts()[static_cast<size_t>(block.first_part)];
    Queries queries;
    Load(block, &queries);
    constexpr int64_t kFloats = PartialFloats(kMaxBlockQueryRows, kMaxHeadDim);
    alignas(64) float total_space[kFloats], later_space[kFloats];
    const Partial total = PartialAt(total_space, block.rows, d_);
    const Partial later = PartialAt(later_space, block.rows, d_);
    for (int64_t p = 0; p < block.parts; ++p) {
      RunPart(block, part[p], &queries, p == 0 ? total : later);
      if (p > 0) Join(block, later, total);
    }
    Write(block, total);
  }

  // A thread for each part, where there are fewer blocks than threads.
  void RunParts(kernels::ThreadPool& pool) const {
    const std::vector<Block>& blocks = plan_.blocks();
    const std::vector<Part>& parts = plan_.parts();
    const auto queries =
        std::make_unique_for_overwrite<Queries[]>(blocks.size());
    int64_t rows = 0;
    for (size_t i = 0; i < blocks.size(); ++i) {
      rows = std::max<int64_t>(rows, blocks[i].rows);
      Load(blocks[i], &queries[i]);
    }
    const int64_t floats = PartialFloats(rows, d_);
    kernels::AlignedBuffer<float> space(parts.size() *
                                        static_cast<size_t>(floats));
    const auto state = [&](int64_t i, const Block& block) {
      return PartialAt(space.data() + i * floats, block.rows, d_);
    };
    const auto run = [&](int64_t i) {
      const Part& part = parts[static_cast<size_t>(i)];
      const auto block = static_cast<size_t>(part.block);
      RunPart(blocks[block], part, &queries[block], state(i, blocks[block]));
    };
    pool.ParallelFor(static_cast<int64_t>(parts.size()), 1,
                     [&](int64_t begin, int64_t end, int) {
                       for (int64_t i = begin; i < end; ++i) run(i);
                     });
    for (const Block& block : blocks) {
      const Partial total = state(block.first_part, block);
      for (int64_t p = 1; p < block.parts; ++p) {
        Join(block, state(block.first_part + p, block), total);
      }
      Write(block, total);
    }
  }

  static QueryPanel Panel(Int8Queries* queries, int rows) {
    return {queries->codes, queries->scales, rows};
  }

  void Load(const Block& block, Int8Queries* queries) const {
    alignas(64) float rotated[kMaxHeadDim];
    const QueryPanel panel = Panel(queries, block.rows);
    for (int r = 0; r < block.rows; ++r) {
      std::memcpy(rotated, ItemOf(block).q + RowOffset(block, r),
                  static_cast<size_t>(d_) * sizeof(float));
      vectors_.hadamard(rotated, d_);
      kernels_.quantize_query(rotated, d_, options_.scale, r, panel);
    }
  }

  void Load(const Block& block, F32Queries* queries) const {
    for (int r = 0; r < block.rows; ++r) {
      vectors_.scale(ItemOf(block).q + RowOffset(block, r), options_.scale, d_,
                     queries->q + r * d_);
    }
  }

  // scores[r * kPartTokens + t] for keys [first, last) of a page of a part.
  void Scores(const Block& block, const Part& part, Int8Queries* queries,
              int64_t page, int64_t first, int64_t last, float* scores) const {
    const KvInt8& cache = *ItemOf(block).cache;
    const int64_t head = block.kv_head;
    const int8_t* next = page + 1 < part.end_page
                             ? cache.Keys(page + 1, head)
                             : cache.Values(part.first_page, head).codes;
    kernels_.scores_int8(
        Panel(queries, block.rows), d_, cache.Keys(page, head),
        cache.KeyScales(page, head), next, static_cast<int>(first / kKeyTile),
        static_cast<int>((last - 1) / kKeyTile + 1), scores, kPartTokens);
  }

  void Scores(const Block& block, const Part&, F32Queries* queries,
              int64_t page, int64_t first, int64_t last, float* scores) const {
    alignas(64) float wide[kKeyTile * kMaxHeadDim];
    for (int64_t tile = first / kKeyTile; tile * kKeyTile < last; ++tile) {
      const auto* keys =
          ItemOf(block).cache->KeyTile(page, block.kv_head, tile);
      floats_.f32_tile(queries->q, d_, block.rows,
                       Widen(keys, kKeyTile * d_, wide), d_, false,
                       scores + tile * kKeyTile, kPartTokens);
    }
  }

  // `count` floats, a multiple of 512: those that there are, or in `wide`.
  const float* Widen(const float* x, int64_t, float*) const { return x; }
  const float* Widen(const uint16_t* x, int64_t count, float* wide) const {
    floats_.bf16_expand(reinterpret_cast<const uint8_t*>(x),
                        count / kBf16ExpandFloats, wide);
    return wide;
  }

  // Keys of a page that some row of a block sees.
  struct Range {
    int64_t first, last;
  };
  Range Seen(const Block& block, int64_t page) const {
    const int64_t start = page * kPageTokens;
    return {std::max<int64_t>(0, FirstKey(block, 0) - start),
            std::min(kPageTokens, Position(block, block.rows - 1) + 1 - start)};
  }

  // Where the keys of the part after this one begin, which the same thread most
  // likely reads next; null after the last.
  const int8_t* KeysAfter(const Part& part) const {
    if (&part == &plan_.parts().back()) return nullptr;
    const Part& next = *(&part + 1);
    const Block& block = plan_.blocks()[static_cast<size_t>(next.block)];
    return ItemOf(block).cache->Keys(next.first_page, block.kv_head);
  }

  // values = those of a part, weighted by `weights` [rows][kPartTokens].
  void SumValues(const Block& block, const Part& part, const float* weights,
                 float* values) const {
    const Cache& cache = *ItemOf(block).cache;
    if constexpr (std::is_same_v<Cache, KvInt8>) {
      PartValues held = {};
      held.next = KeysAfter(part);
      for (int64_t page = part.first_page; page < part.end_page; ++page) {
        held.pages[held.count++] = cache.Values(page, block.kv_head);
      }
      kernels_.sum_values_int8(weights, block.rows, held, d_, values);
    } else {
      std::fill_n(values, block.rows * d_, 0.0f);
      alignas(64) float wide[kPageTokens * kMaxHeadDim];
      for (int64_t page = part.first_page; page < part.end_page; ++page) {
        const auto [first, last] = Seen(block, page);
        // Of a page all may be widened, also what was not written yet.
        const int64_t begin = first / kKeyTile * kKeyTile;
        const int64_t end = (last + kKeyTile - 1) / kKeyTile * kKeyTile;
        const float* v = Widen(cache.Values(page, block.kv_head) + begin * d_,
                               (end - begin) * d_, wide) +
                         (first - begin) * d_;
        kernels_.add_values_f32(
            weights + (page - part.first_page) * kPageTokens + first,
            block.rows, v, last - first, d_, values);
      }
    }
  }

  // Scales lie apart from what they belong to: a part would wait for those of
  // each page.
  void FetchScales(const Block& block, const Part& part) const {
    if constexpr (std::is_same_v<Cache, KvInt8>) {
      for (int64_t page = part.first_page; page < part.end_page; ++page) {
        const absl::Span<const uint8_t> scales =
            ItemOf(block).cache->Scales(page, block.kv_head);
        for (size_t i = 0; i < scales.size(); i += 64) {
          __builtin_prefetch(&scales[i], /*rw=*/0, /*locality=*/2);
        }
      }
    }
  }

  void RunPart(const Block& block, const Part& part, Queries* queries,
               const Partial& state) const {
    alignas(64) float scores[kMaxBlockQueryRows * kPartTokens];
    FetchScales(block, part);
    for (int64_t page = part.first_page; page < part.end_page; ++page) {
      const auto [first, last] = Seen(block, page);
      Scores(block, part, queries, page, first, last,
             scores + (page - part.first_page) * kPageTokens);
    }
    const int64_t start = part.first_page * kPageTokens;
    const int64_t tokens = part.end_page * kPageTokens - start;
    for (int r = 0; r < block.rows; ++r) {
      float* row = scores + r * kPartTokens;
      const int64_t position = Position(block, r);
      const int64_t begin = std::max<int64_t>(0, FirstKey(block, r) - start);
      const int64_t end = std::min(tokens, position + 1 - start);
      if (begin < end) {
        kernels_.softmax(row, tokens, begin, end, state.max + r, state.sum + r);
      } else {
        std::fill_n(row, tokens, 0.0f);
        state.max[r] = kLowestScore;
        state.sum[r] = 0;
      }
    }
    SumValues(block, part, scores, state.values);
  }

  // Joins the state of the next part to that of those before it. A part may
  // hold no key that a row sees: before its window, or after its position.
  void Join(const Block& block, const Partial& later,
            const Partial& total) const {
    for (int r = 0; r < block.rows; ++r) {
      if (later.max[r] == kLowestScore) continue;
      const float* from = later.values + r * d_;
      float* to = total.values + r * d_;
      if (total.max[r] == kLowestScore) {
        total.max[r] = later.max[r];
        total.sum[r] = later.sum[r];
        std::memcpy(to, from, static_cast<size_t>(d_) * sizeof(float));
        continue;
      }
      kernels_.join(later.max[r], later.sum[r], from, d_, total.max + r,
                    total.sum + r, to);
    }
  }

  void Write(const Block& block, const Partial& total) const {
    for (int r = 0; r < block.rows; ++r) {
      vectors_.scale(total.values + r * d_, 1.0f / total.sum[r], d_,
                     ItemOf(block).out + RowOffset(block, r));
    }
  }

  absl::Span<const AttendItem<Cache>> items_;
  AttendOptions options_;
  int64_t d_;
  const FloatKernels& floats_;
  const VectorKernels& vectors_;
  const AttentionKernels& kernels_;
  AttentionPlan plan_;
};

}  // namespace

void Attend(absl::Span<const AttendItem<KvInt8>> items,
            const AttendOptions& options, kernels::ThreadPool& pool,
            kernels::Isa isa) {
  if (items.empty()) return;
  Attention<KvInt8>(items, options, isa).Run(pool);
}

void Attend(absl::Span<const AttendItem<KvF32>> items,
            const AttendOptions& options, kernels::ThreadPool& pool,
            kernels::Isa isa) {
  if (items.empty()) return;
  Attention<KvF32>(items, options, isa).Run(pool);
}

void Attend(absl::Span<const AttendItem<KvBf16>> items,
            const AttendOptions& options, kernels::ThreadPool& pool,
            kernels::Isa isa) {
  if (items.empty()) return;
  Attention<KvBf16>(items, options, isa).Run(pool);
}

}  // namespace onegrid::cpu
