#ifndef KERNELS_BASE_HUGE_PAGE_BLOCKS_H_
#define KERNELS_BASE_HUGE_PAGE_BLOCKS_H_

#include <cstddef>
#include <cstdint>
#include <memory>

namespace onegrid::kernels {

// Memory side by side with that of other callers, in blocks of
// kHugePageBlockBytes for which huge pages are asked: a model of a hundred
// matrices of less than one such page each is then swept with few misses of
// translations, which cost most on a virtual machine, and hardware fetches
// ahead without a stop at each 4 KB.
//
// For buffers that live about as long as the process: a block goes back to the
// system when the last buffer in it dies, and what a dead one held is not used
// again before.

inline constexpr size_t kHugePageBlockBytes = size_t{16} << 20;

// `bytes` bytes that start on a cache line (64 bytes), not zeroed, and are
// freed with the last copy of the pointer. bytes <= kHugePageBlockBytes. Throws
// std::bad_alloc. Thread-safe.
std::shared_ptr<uint8_t> AllocateOnHugePages(size_t bytes);

}  // namespace onegrid::kernels

#endif  // KERNELS_BASE_HUGE_PAGE_BLOCKS_H_
