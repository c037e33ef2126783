#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "kernels/base/aligned_buffer.h"
#include "kernels/base/check.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/vector_kernels.h"

namespace onegrid::cpu {
namespace {

// Lower than any score.
constexpr float kLowestScore = -3.0e38f;
// What FloatKernels::bf16_expand widens at once.
constexpr int64_t kBf16ExpandFloats = kBf16GroupBytes / 2;
// Up to a kernel's block_rows (query, head) rows of one item that read one
// key/value head, and the keys they see. Row r is query r / group, head r %
// group of the key/value head's group of query heads.
struct Block {
  int64_t item;
  int64_t kv_head;
  int64_t first_row;
  int rows;
  int64_t first_page;
  int64_t end_page;
  int64_t first_part;  // Index of its parts.
  int64_t parts;
};

// One part of a block's keys: up to kPartPages pages. These are counted from
// the first key of the sequence, and the parts are joined in order. So a
// token's result does not depend on the threads or on the tokens that are
// computed with it.
struct Part {
  int64_t block;
  int64_t first_page;
  int64_t end_page;
};

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
        kv_heads_(items[0].cache->layout().kv_heads),
        group_(options.heads / kv_heads_),
        floats_(FloatKernelsFor(isa)),
        vectors_(VectorKernelsFor(isa)),
        kernels_(AttentionKernelsFor(isa)) {
    KERNELS_CHECK(options.heads == group_ * kv_heads_);
  }

  void Run(kernels::ThreadPool& pool) {
    Plan();
    if (blocks_.size() < static_cast<size_t>(pool.size())) {
      RunParts(pool);
    } else {
      RunBlocks(pool);
    }
  }

 private:
  using Queries = std::conditional_t<std::is_same_v<Cache, KvInt8>, Int8Queries,
                                     F32Queries>;

  const AttendItem<Cache>& ItemOf(const Block& block) const {
    return items_[static_cast<size_t>(block.item)];
  }
  int64_t Position(const Block& block, int64_t r) const {
    return ItemOf(block).first_pos + (block.first_row + r) / group_;
  }
  int64_t FirstKey(int64_t position) const {
    if (options_.window <= 0) return 0;
    return std::max<int64_t>(0, position - options_.window + 1);
  }
  // Offset of row r in q and out.
  int64_t RowOffset(const Block& block, int64_t r) const {
    const int64_t row = block.first_row + r;
    const int64_t head = block.kv_head * group_ + row % group_;
    return (row / group_ * options_.heads + head) * d_;
  }

  // A thread for each block.
  void RunBlocks(kernels::ThreadPool& pool) const {
    pool.ParallelFor(static_cast<int64_t>(blocks_.size()), 1,
                     [&](int64_t begin, int64_t end, int) {
                       for (int64_t i = begin; i < end; ++i) {
                         RunBlock(blocks_[static_cast<size_t>(i)]);
                       }
                     });
  }

  void RunBlock(const Block& block) const {
    const Part* part = &parts_[static_cast<size_t>(block.first_part)];
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
    int64_t rows = 0;
    for (const Block& block : blocks_) {
      rows = std::max<int64_t>(rows, block.rows);
    }
    const int64_t floats = PartialFloats(rows, d_);
    kernels::AlignedBuffer<float> space(parts_.size() *
                                        static_cast<size_t>(floats));
    const auto state = [&](int64_t i, const Block& block) {
      return PartialAt(space.data() + i * floats, block.rows, d_);
    };
    const auto run = [&](int64_t i) {
      const Part& part = parts_[static_cast<size_t>(i)];
      const Block& block = blocks_[static_cast<size_t>(part.block)];
      Queries queries;
      Load(block, &queries);
      RunPart(block, part, &queries, state(i, block));
    };
    pool.ParallelFor(static_cast<int64_t>(parts_.size()), 1,
                     [&](int64_t begin, int64_t end, int) {
                       for (int64_t i = begin; i < end; ++i) run(i);
                     });
    for (const Block& block : blocks_) {
      const Partial total = state(block.first_part, block);
      for (int64_t p = 1; p < block.parts; ++p) {
        Join(block, state(block.first_part + p, block), total);
      }
      Write(block, total);
    }
  }

  // Cuts the work into blocks, and these into parts.
  void Plan() {
    for (size_t i = 0; i < items_.size(); ++i) {
      const AttendItem<Cache>& item = items_[i];
      KERNELS_CHECK(item.cache->layout().head_dim == d_);
      KERNELS_CHECK(item.cache->layout().kv_heads == kv_heads_);
      KERNELS_CHECK(item.first_pos >= 0 &&
                    item.first_pos + item.m <= item.cache->length());
      for (int64_t head = 0; head < kv_heads_; ++head) {
        const int64_t rows = item.m * group_;
        for (int64_t row = 0; row < rows; row += kernels_.block_rows) {
          Block block = {};
          block.item = static_cast<int64_t>(i);
          block.kv_head = head;
          block.first_row = row;
          block.rows = static_cast<int>(
              std::min<int64_t>(kernels_.block_rows, rows - row));
          block.first_page = FirstKey(Position(block, 0)) / kPageTokens;
          block.end_page = Position(block, block.rows - 1) / kPageTokens + 1;
          blocks_.push_back(block);
        }
      }
    }
    for (size_t i = 0; i < blocks_.size(); ++i) {
      Block& block = blocks_[i];
      block.first_part = static_cast<int64_t>(parts_.size());
      for (int64_t page = block.first_page; page < block.end_page;) {
        const int64_t end =
            std::min(block.end_page, (page / kPartPages + 1) * kPartPages);
        parts_.push_back({static_cast<int64_t>(i), page, end});
        page = end;
      }
      block.parts = static_cast<int64_t>(parts_.size()) - block.first_part;
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

  // scores[r * kPartTokens + t] for keys [first, last) of a page.
  void Scores(const Block& block, Int8Queries* queries, int64_t page,
              int64_t first, int64_t last, float* scores) const {
    const KvInt8& cache = *ItemOf(block).cache;
    kernels_.scores_int8(
        Panel(queries, block.rows), d_, cache.Keys(page, block.kv_head),
        cache.KeyScales(page, block.kv_head),
        static_cast<int>(first / kKeyTile),
        static_cast<int>((last - 1) / kKeyTile + 1), scores, kPartTokens);
  }

  void Scores(const Block& block, F32Queries* queries, int64_t page,
              int64_t first, int64_t last, float* scores) const {
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
    return {std::max<int64_t>(0, FirstKey(Position(block, 0)) - start),
            std::min(kPageTokens, Position(block, block.rows - 1) + 1 - start)};
  }

  // values = those of a part, weighted by `weights` [rows][kPartTokens].
  void SumValues(const Block& block, const Part& part, const float* weights,
                 float* values) const {
    const Cache& cache = *ItemOf(block).cache;
    if constexpr (std::is_same_v<Cache, KvInt8>) {
      PartValues held = {};
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

  void RunPart(const Block& block, const Part& part, Queries* queries,
               const Partial& state) const {
    alignas(64) float scores[kMaxBlockQueryRows * kPartTokens];
    for (int64_t page = part.first_page; page < part.end_page; ++page) {
      const auto [first, last] = Seen(block, page);
      Scores(block, queries, page, first, last,
             scores + (page - part.first_page) * kPageTokens);
    }
    const int64_t start = part.first_page * kPageTokens;
    const int64_t tokens = part.end_page * kPageTokens - start;
    for (int r = 0; r < block.rows; ++r) {
      float* row = scores + r * kPartTokens;
      const int64_t position = Position(block, r);
      const int64_t begin = std::max<int64_t>(0, FirstKey(position) - start);
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
  int64_t kv_heads_;
  int64_t group_;
  const FloatKernels& floats_;
  const VectorKernels& vectors_;
  const AttentionKernels& kernels_;
  std::vector<Block> blocks_;
  std::vector<Part> parts_;
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
