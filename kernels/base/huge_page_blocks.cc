#include "kernels/base/huge_page_blocks.h"

#include <sys/mman.h>

#include <cstdlib>
#include <mutex>
#include <new>

#include "kernels/base/check.h"

namespace onegrid::kernels {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;
static_assert(kHugePageBlockBytes % kHugePage == 0);

// With AddressSanitizer each buffer is a block, so that it sees their ends.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kShared = false;
#else
constexpr bool kShared = true;
#endif

struct Block {
  explicit Block(size_t size)
      : bytes(static_cast<uint8_t*>(
            std::aligned_alloc(kShared ? kHugePage : kLine, size))) {
    if (bytes == nullptr) throw std::bad_alloc();
    // Without them it works too, only slower.
    if (kShared) ::madvise(bytes, size, MADV_HUGEPAGE);
  }
  ~Block() { std::free(bytes); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  uint8_t* const bytes;
  size_t used = 0;
};

}  // namespace

std::shared_ptr<uint8_t> AllocateOnHugePages(size_t bytes) {
  KERNELS_CHECK(bytes <= kHugePageBlockBytes);
  const size_t needed = (bytes + kLine - 1) / kLine * kLine;
  if (!kShared) {
    const auto block = std::make_shared<Block>(needed);
    return {block, block->bytes};
  }
  static std::mutex mutex;
  static auto* last = new std::weak_ptr<Block>;
  std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<Block> block = last->lock();
  if (block == nullptr || block->used + needed > kHugePageBlockBytes) {
    block = std::make_shared<Block>(kHugePageBlockBytes);
    *last = block;
  }
  uint8_t* const start = block->bytes + block->used;
  block->used += needed;
  return {block, start};
}

}  // namespace onegrid::kernels
