#ifndef KERNELS_BASE_SLAB_BUFFER_H_
#define KERNELS_BASE_SLAB_BUFFER_H_

#include <cstddef>
#include <cstdint>

namespace onegrid::kernels {

// `size` bytes that start on a cache line (64 bytes) and are zeroed, side by
// side with other buffers of the same size on huge pages (why:
// huge_page_blocks.h). For many equal buffers that come and go: what a dead one
// held goes to the next of its size, in the slab of the lowest address first,
// and a slab, of some MB, goes back to the system when all its buffers are
// dead, of each size but for the last. Throws std::bad_alloc. Buffers may be
// made, used and destroyed by different threads at once.
class SlabBuffer {
 public:
  explicit SlabBuffer(size_t size);
  ~SlabBuffer();
  SlabBuffer(const SlabBuffer&) = delete;
  SlabBuffer& operator=(const SlabBuffer&) = delete;

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const size_t size_;
  uint8_t* const data_;
};

// Bytes taken from the system for slabs of buffers of `size` bytes.
size_t SlabBytes(size_t size);

}  // namespace onegrid::kernels

#endif  // KERNELS_BASE_SLAB_BUFFER_H_
