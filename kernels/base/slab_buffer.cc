#include "kernels/base/slab_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <utility>
#include <vector>

#include "kernels/base/check.h"

namespace onegrid::kernels {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;
// A slab has at least so many bytes, whole huge pages.
constexpr size_t kSlabBytes = 2 * kHugePage;

// With AddressSanitizer each buffer is a slab, so that it sees their ends.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kShared = false;
#else
constexpr bool kShared = true;
#endif

constexpr size_t RoundUp(size_t n, size_t to) { return (n + to - 1) / to * to; }

struct Free {
  void operator()(uint8_t* p) const { std::free(p); }
};

// Slots of `slot` bytes.
class Slabs {
 public:
  explicit Slabs(size_t slot)
      : slot_(slot),
        slots_(kShared ? std::max<size_t>(1, kSlabBytes / slot) : 1),
        bytes_(kShared ? RoundUp(slots_ * slot, kHugePage) : slot) {}

  uint8_t* Take() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (open_.empty()) open_.insert(Add());
    uint8_t* const at = *open_.begin();
    Slab& slab = slabs_.at(at);
    const size_t slot = slab.free.back();
    slab.free.pop_back();
    if (slab.free.empty()) open_.erase(at);
    return at + slot * slot_;
  }

  void Give(uint8_t* buffer) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto slab = std::prev(slabs_.upper_bound(buffer));
    const auto slot = static_cast<size_t>(buffer - slab->first) / slot_;
    KERNELS_CHECK(slot < slots_);
    slab->second.free.push_back(slot);
    open_.insert(slab->first);
    if (slab->second.free.size() < slots_ || slabs_.size() == 1) return;
    open_.erase(slab->first);
    slabs_.erase(slab);
  }

  size_t bytes() {
    std::lock_guard<std::mutex> lock(mutex_);
    return slabs_.size() * bytes_;
  }

 private:
  struct Slab {
    std::unique_ptr<uint8_t, Free> memory;
    std::vector<size_t> free;  // slots
  };

  uint8_t* Add() {
    Slab slab;
    slab.memory.reset(static_cast<uint8_t*>(
        std::aligned_alloc(kShared ? kHugePage : kLine, bytes_)));
    uint8_t* const at = slab.memory.get();
    if (at == nullptr) throw std::bad_alloc();
    // Without them it works too, only slower.
    if (kShared) ::madvise(at, bytes_, MADV_HUGEPAGE);
    for (size_t slot = slots_; slot > 0; --slot) slab.free.push_back(slot - 1);
    slabs_.emplace(at, std::move(slab));
    return at;
  }

  const size_t slot_, slots_, bytes_;
  std::mutex mutex_;
  std::map<uint8_t*, Slab> slabs_;
  std::set<uint8_t*> open_;  // those with a free slot
};

// Lives as long as the process.
Slabs& SlabsOf(size_t size) {
  static std::mutex mutex;
  static auto* all = new std::map<size_t, Slabs>;
  const size_t slot = std::max(kLine, RoundUp(size, kLine));
  std::lock_guard<std::mutex> lock(mutex);
  return all->try_emplace(slot, slot).first->second;
}

}  // namespace

SlabBuffer::SlabBuffer(size_t size) : size_(size), data_(SlabsOf(size).Take()) {
  std::memset(data_, 0, size);
}

SlabBuffer::~SlabBuffer() { SlabsOf(size_).Give(data_); }

size_t SlabBytes(size_t size) { return SlabsOf(size).bytes(); }

}  // namespace onegrid::kernels
