#ifndef KERNELS_BASE_ALIGNED_BUFFER_H_
#define KERNELS_BASE_ALIGNED_BUFFER_H_

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "kernels/base/huge_page_blocks.h"

namespace onegrid::kernels {

enum class Lifetime {
  kShort,
  kLong,  // about that of the process
};

// A fixed-size array of T that starts on a cache line (64 bytes) and is zeroed.
// The allocation is a whole number of cache lines and the tail is zeroed too,
// so a kernel may read (never use) up to the end of the last line.
// A large one asks for huge pages: see huge_page_blocks.h, which also holds
// smaller ones of Lifetime::kLong.
// Movable, not copyable. A moved-from buffer is empty. Throws std::bad_alloc
// when there is no memory.
template <typename T>
class AlignedBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kHugePage = size_t{2} << 20;

  AlignedBuffer() = default;

  explicit AlignedBuffer(size_t n, Lifetime lifetime = Lifetime::kShort)
      : size_(n) {
    if (n == 0) return;
    if (n > (std::numeric_limits<size_t>::max() - kHugePage) / sizeof(T)) {
      throw std::bad_alloc();
    }
    const bool large = n * sizeof(T) >= 2 * kHugePage;
    const size_t align = large ? kHugePage : kAlignment;
    const size_t bytes =
        (n * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    if (!large && lifetime == Lifetime::kLong) {
      auto block = AllocateOnHugePages(bytes);
      T* const start = reinterpret_cast<T*>(block.get());
      data_ = std::unique_ptr<T, Free>(start, Free{std::move(block)});
    } else {
      data_.reset(static_cast<T*>(std::aligned_alloc(align, bytes)));
      if (data_ == nullptr) throw std::bad_alloc();
      // Without them it works too, only slower.
      if (large) ::madvise(data_.get(), bytes, MADV_HUGEPAGE);
    }
    std::memset(static_cast<void*>(data_.get()), 0, bytes);
  }

  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }

 private:
  struct Free {
    void operator()(T* p) const {
      if (block == nullptr) std::free(p);
    }
    std::shared_ptr<uint8_t> block;  // that the memory is part of, if any
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

}  // namespace onegrid::kernels

#endif  // KERNELS_BASE_ALIGNED_BUFFER_H_
