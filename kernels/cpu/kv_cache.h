#ifndef KERNELS_CPU_KV_CACHE_H_
#define KERNELS_CPU_KV_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/slab_buffer.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/attention_kernels.h"

namespace onegrid::cpu {

struct KvLayout {
  int64_t head_dim;  // A power of two, 32 to kMaxHeadDim.
  int64_t kv_heads;
  int64_t capacity_tokens;  // The most tokens that may be appended.
  // Counts the bytes of all pages made and not yet freed, if set; must outlive
  // them. Pages are made and freed by one thread at a time.
  int64_t* bytes_held = nullptr;
};

// A page of kPageTokens tokens of one layer. Full ones may belong to several
// sequences; nobody writes to them then.
using KvPage = std::shared_ptr<kernels::SlabBuffer>;

// Pages of one layer and one sequence. Memory grows by a page of 64 tokens at a
// time and shrinks when a sliding window has moved past a page.
// Reading is thread-safe; anything else needs exclusive access.
class KvPages {
 public:
  // head_bytes: bytes of one page for one head.
  KvPages(const KvLayout& layout, int64_t head_bytes);

  const KvLayout& layout() const { return layout_; }
  // Tokens appended, released ones included: the next token's position.
  int64_t length() const { return length_; }
  // Bytes held now.
  int64_t bytes() const;
  // Bytes of one page for one head.
  int64_t head_bytes() const { return head_bytes_; }
  // Bytes of one page.
  int64_t page_bytes() const { return layout_.kv_heads * head_bytes_; }

  // Makes the pages that so many more tokens need, so that appending them makes
  // none. length() + tokens <= capacity_tokens.
  void Reserve(int64_t tokens);
  // Frees the pages whose tokens all stand before `position`; attention must
  // not read them again.
  void ReleaseBefore(int64_t position);
  // Forgets the tokens from `length` on, 0 <= length <= length(). The page of
  // token length - 1 must not have been released, unless length ends a page.
  void Truncate(int64_t length);
  // Holds what `other`, of the same layout, holds, and nothing else.
  void CopyFrom(const KvPages& other);

  // A page that is full, to be shared; null if it was released.
  // 0 <= page < length() / kPageTokens.
  KvPage FullPage(int64_t page) const;
  // Puts a page of the same tokens in the place of a full one.
  void Replace(int64_t page, KvPage same);
  // Makes these full pages of the same layout an empty sequence's first ones;
  // null: released.
  void Adopt(std::vector<KvPage> pages);

  const uint8_t* Head(int64_t page, int64_t head) const {
    return pages_[static_cast<size_t>(page)]->data() + head * head_bytes_;
  }

 protected:
  uint8_t* MutableHead(int64_t page, int64_t head) {
    return pages_[static_cast<size_t>(page)]->data() + head * head_bytes_;
  }
  // Reserves `tokens` more and counts them.
  void Extend(int64_t tokens);

 private:
  KvPage NewPage() const;
  KvPage CopyOf(const KvPage& page) const;

  KvLayout layout_;
  int64_t head_bytes_;
  int64_t length_ = 0;
  std::vector<KvPage> pages_;  // null: released
};

// Keys rotated by the orthonormal Hadamard matrix, then int8 with one f32 scale
// per token and head; values int8 in groups of 32 with scales of 16 bits, which
// are multiples of an f32 scale per token and head: of the largest / 32767.
// A page of one head holds
//   keys [4 tiles][head_dim / 4][16 tokens][4],
//   values [head_dim / 16 tiles][16][16 columns][4 tokens],
//   key scales [64], token scales [64], group scales [head_dim / 32][64
//   tokens].
class KvInt8 : public KvPages {
 public:
  explicit KvInt8(const KvLayout& layout);

  // Bytes of one token and head.
  static constexpr int64_t TokenBytes(int64_t head_dim) {
    return 2 * head_dim + 2 * int64_t{sizeof(float)} +
           head_dim / kValueGroup * int64_t{sizeof(int16_t)};
  }

  // Appends k, v [tokens, kv_heads, head_dim].
  // length() + tokens <= capacity_tokens.
  void Append(const float* k, const float* v, int64_t tokens,
              kernels::ThreadPool& pool, kernels::Isa isa = kernels::BestIsa());

  const int8_t* Keys(int64_t page, int64_t head) const;
  const float* KeyScales(int64_t page, int64_t head) const;
  // All scales of a page, those of keys first: whole cache lines.
  absl::Span<const uint8_t> Scales(int64_t page, int64_t head) const;
  PageValues Values(int64_t page, int64_t head) const;
};

// Keys and values in a type of their own; those of bf16 are rounded to nearest,
// ties to even. A page of one head holds
//   keys [4 tiles][head_dim][16 tokens], values [64 tokens][head_dim].
template <typename T>
class KvFloat : public KvPages {
 public:
  explicit KvFloat(const KvLayout& layout);

  // As in KvInt8.
  void Append(const float* k, const float* v, int64_t tokens,
              kernels::ThreadPool& pool);

  const T* KeyTile(int64_t page, int64_t head, int64_t tile) const;
  const T* Values(int64_t page, int64_t head) const;
};

using KvF32 = KvFloat<float>;
using KvBf16 = KvFloat<uint16_t>;
extern template class KvFloat<float>;
extern template class KvFloat<uint16_t>;

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_KV_CACHE_H_
