#include "kernels/cpu/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/types/span.h"
#include "kernels/base/check.h"
#include "kernels/base/float_types.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/vector_kernels.h"
#include "kernels/quant/int8_activations.h"

namespace onegrid::cpu {
namespace {

constexpr int64_t kTiles = kPageTokens / kKeyTile;
static_assert(kValueGroup == kLinearGroup);

template <typename T>
T Narrow(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else {
    return kernels::FloatToBf16(value);
  }
}

// Fewer floats than this are not worth a loop over threads.
int64_t TokenGrain(const KvLayout& layout, int64_t tokens,
                   const kernels::ThreadPool& pool) {
  return std::max(pool.GrainFor(tokens),
                  1 + 8192 / (layout.head_dim * layout.kv_heads));
}

}  // namespace

KvPages::KvPages(const KvLayout& layout, int64_t head_bytes)
    : layout_(layout), head_bytes_(head_bytes) {
  const int64_t d = layout.head_dim;
  KERNELS_CHECK(d >= 32 && d <= kMaxHeadDim && (d & (d - 1)) == 0);
  KERNELS_CHECK(layout.kv_heads > 0 && layout.capacity_tokens > 0);
}

KvPage KvPages::NewPage() const {
  using Buffer = KvPage::element_type;
  const auto size = static_cast<size_t>(page_bytes());
  int64_t* const held = layout_.bytes_held;
  if (held == nullptr) return std::make_shared<Buffer>(size);
  *held += page_bytes();
  return {new Buffer(size), [held](Buffer* buffer) {
            *held -= static_cast<int64_t>(buffer->size());
            delete buffer;
          }};
}

KvPage KvPages::CopyOf(const KvPage& page) const {
  KvPage copy = NewPage();
  std::memcpy(copy->data(), page->data(), page->size());
  return copy;
}

int64_t KvPages::bytes() const {
  int64_t total = 0;
  for (const KvPage& page : pages_) {
    if (page != nullptr) total += static_cast<int64_t>(page->size());
  }
  return total;
}

void KvPages::ReleaseBefore(int64_t position) {
  const int64_t last = std::min(position, length_) / kPageTokens;
  for (int64_t page = last - 1; page >= 0; --page) {
    KvPage& buffer = pages_[static_cast<size_t>(page)];
    if (buffer == nullptr) break;  // Those before it were released earlier.
    buffer = nullptr;
  }
}

void KvPages::Truncate(int64_t length) {
  KERNELS_CHECK(length >= 0 && length <= length_);
  length_ = length;
  const int64_t pages = (length + kPageTokens - 1) / kPageTokens;
  pages_.resize(static_cast<size_t>(pages));
  if (length % kPageTokens == 0) return;
  // A token cannot be appended to a page that was released, nor to one that
  // others have, too.
  KERNELS_CHECK(pages_.back() != nullptr);
  if (pages_.back().use_count() > 1) pages_.back() = CopyOf(pages_.back());
}

void KvPages::CopyFrom(const KvPages& other) {
  KERNELS_CHECK(other.head_bytes_ == head_bytes_ &&
                other.layout_.kv_heads == layout_.kv_heads &&
                other.length_ <= layout_.capacity_tokens);
  length_ = other.length_;
  pages_.clear();
  for (const KvPage& page : other.pages_) {
    pages_.push_back(page == nullptr ? nullptr : CopyOf(page));
  }
}

KvPage KvPages::FullPage(int64_t page) const {
  KERNELS_CHECK(page >= 0 && page < length_ / kPageTokens);
  return pages_[static_cast<size_t>(page)];
}

void KvPages::Replace(int64_t page, KvPage same) {
  KERNELS_CHECK(page >= 0 && page < length_ / kPageTokens && same != nullptr &&
                static_cast<int64_t>(same->size()) == page_bytes());
  pages_[static_cast<size_t>(page)] = std::move(same);
}

void KvPages::Adopt(std::vector<KvPage> pages) {
  const int64_t tokens = static_cast<int64_t>(pages.size()) * kPageTokens;
  KERNELS_CHECK(length_ == 0 && tokens <= layout_.capacity_tokens);
  for (const KvPage& page : pages) {
    KERNELS_CHECK(page == nullptr ||
                  static_cast<int64_t>(page->size()) == page_bytes());
  }
  length_ = tokens;
  pages_ = std::move(pages);
}

void KvPages::Reserve(int64_t tokens) {
  KERNELS_CHECK(tokens >= 0 && length_ + tokens <= layout_.capacity_tokens);
  const size_t pages =
      static_cast<size_t>((length_ + tokens + kPageTokens - 1) / kPageTokens);
  while (pages_.size() < pages) {
    pages_.push_back(NewPage());
  }
}

void KvPages::Extend(int64_t tokens) {
  Reserve(tokens);
  length_ += tokens;
}

KvInt8::KvInt8(const KvLayout& layout)
    : KvPages(layout, kPageTokens * TokenBytes(layout.head_dim)) {}

const int8_t* KvInt8::Keys(int64_t page, int64_t head) const {
  return reinterpret_cast<const int8_t*>(Head(page, head));
}

PageValues KvInt8::Values(int64_t page, int64_t head) const {
  const float* token_scales = KeyScales(page, head) + kPageTokens;
  return {Keys(page, head) + kPageTokens * layout().head_dim,
          reinterpret_cast<const int16_t*>(token_scales + kPageTokens),
          token_scales};
}

absl::Span<const uint8_t> KvInt8::Scales(int64_t page, int64_t head) const {
  const int64_t codes = 2 * kPageTokens * layout().head_dim;
  return {Head(page, head) + codes, static_cast<size_t>(head_bytes() - codes)};
}

const float* KvInt8::KeyScales(int64_t page, int64_t head) const {
  return reinterpret_cast<const float*>(Scales(page, head).data());
}

void KvInt8::Append(const float* k, const float* v, int64_t tokens,
                    kernels::ThreadPool& pool, kernels::Isa isa) {
  const LinearKernels& linear = LinearKernelsFor(isa, 1, CodeBits::k8);
  const VectorKernels& vectors = VectorKernelsFor(isa);
  const AttentionKernels& attention = AttentionKernelsFor(isa);
  const int64_t first = length();
  const int64_t d = layout().head_dim;
  const int64_t heads = layout().kv_heads;
  Extend(tokens);
  const auto append = [&](int64_t token, int64_t head) {
    const int64_t t = (first + token) % kPageTokens;
    auto* keys = reinterpret_cast<int8_t*>(
        MutableHead((first + token) / kPageTokens, head));
    auto* key_scales = reinterpret_cast<float*>(keys + 2 * kPageTokens * d);
    float* token_scales = key_scales + kPageTokens;
    auto* group_scales = reinterpret_cast<int16_t*>(token_scales + kPageTokens);
    const int64_t row = (token * heads + head) * d;
    alignas(64) float rotated[kMaxHeadDim];
    alignas(64) int8_t codes[kMaxHeadDim];
    std::memcpy(rotated, k + row, static_cast<size_t>(d) * sizeof(float));
    vectors.hadamard(rotated, d);
    attention.quantize_key(rotated, d, codes, key_scales + t);
    int8_t* key = keys + t / kKeyTile * kKeyTile * d + t % kKeyTile * 4;
    for (int64_t i = 0; i < d; i += 4) {
      std::memcpy(key + i * kKeyTile, codes + i, 4);
    }
    int32_t offsets[kMaxHeadDim / kValueGroup];
    float scales[kMaxHeadDim / kValueGroup];
    linear.quantize_row(v + row, d / kValueGroup, 0, 1, codes, scales, offsets);
    int8_t* value = keys + kPageTokens * d + t / 4 * kKeyTile * 4 + t % 4;
    for (int64_t i = 0; i < d; ++i) {
      value[i / kKeyTile * kKeyTile * kPageTokens + i % kKeyTile * 4] =
          codes[i];
    }
    const int64_t groups = d / kValueGroup;
    int16_t multiples[kMaxHeadDim / kValueGroup];
    token_scales[t] = quant::QuantizeInt16(
        absl::MakeConstSpan(scales, static_cast<size_t>(groups)), multiples);
    for (int64_t group = 0; group < groups; ++group) {
      group_scales[group * kPageTokens + t] = multiples[group];
    }
  };
  pool.ParallelFor(tokens, TokenGrain(layout(), tokens, pool),
                   [&](int64_t begin, int64_t end, int) {
                     for (int64_t token = begin; token < end; ++token) {
                       for (int64_t head = 0; head < heads; ++head) {
                         append(token, head);
                       }
                     }
                   });
}

template <typename T>
KvFloat<T>::KvFloat(const KvLayout& layout)
    : KvPages(layout, 2 * kPageTokens * layout.head_dim * int64_t{sizeof(T)}) {}

template <typename T>
const T* KvFloat<T>::KeyTile(int64_t page, int64_t head, int64_t tile) const {
  return reinterpret_cast<const T*>(Head(page, head)) +
         tile * kKeyTile * layout().head_dim;
}

template <typename T>
const T* KvFloat<T>::Values(int64_t page, int64_t head) const {
  return KeyTile(page, head, kTiles);
}

template <typename T>
void KvFloat<T>::Append(const float* k, const float* v, int64_t tokens,
                        kernels::ThreadPool& pool) {
  const int64_t first = length();
  const int64_t d = layout().head_dim;
  const int64_t heads = layout().kv_heads;
  Extend(tokens);
  pool.ParallelFor(
      tokens, TokenGrain(layout(), tokens, pool),
      [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin * heads; row < end * heads; ++row) {
          const int64_t position = first + row / heads;
          const int64_t t = position % kPageTokens;
          auto* keys = reinterpret_cast<T*>(
              MutableHead(position / kPageTokens, row % heads));
          T* column = keys + t / kKeyTile * kKeyTile * d + t % kKeyTile;
          T* values = keys + (kPageTokens + t) * d;
          for (int64_t i = 0; i < d; ++i) {
            column[i * kKeyTile] = Narrow<T>(k[row * d + i]);
            values[i] = Narrow<T>(v[row * d + i]);
          }
        }
      });
}

template class KvFloat<float>;
template class KvFloat<uint16_t>;

}  // namespace onegrid::cpu
