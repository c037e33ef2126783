#ifndef KERNELS_BASE_READ_AHEAD_H_
#define KERNELS_BASE_READ_AHEAD_H_

#include <atomic>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "absl/functional/function_ref.h"

namespace onegrid::kernels {

// What a thread reads first in a loop: `bytes` each from `places` places that
// are `apart` bytes apart, side by side. None: places or bytes are 0.
struct FirstReads {
  const uint8_t* at = nullptr;
  int64_t apart = 0;
  int64_t bytes = 0;
  int places = 0;
};

// Memory is idle while threads wait for each other or for what one thread does
// alone. So that they use it, this remembers which loop followed which, and
// tells those that wait what they read first if it follows again: a step of a
// model is the same loops each time.
//
// Measured on Granite Rapids with two threads, tokens/s of one sequence, one
// token per switch: Gemma 3 270M 1.015 to 1.02, shapes of 1B 1.012 to 1.02 and
// of Gemma 4 E2B 1.01; of 8 sequences 1.0. Twice the bytes are no faster.
class ReadAhead {
 public:
  // Fetched by a thread before a loop, at most: some of its L2 cache.
  static constexpr int64_t kMostBytes = 256 << 10;

  // threads >= 1.
  explicit ReadAhead(int threads);

  // A loop begins that reads what `what` stands for (its address is not read),
  // and in it each thread what first(thread) says. What it says need not stay
  // valid: fetching from anywhere is harmless. Not thread-safe.
  void Begin(const void* what, absl::FunctionRef<FirstReads(int thread)> first);

  // Asks for the next lines of what `thread` reads in the loop that is expected
  // to follow, and says whether there were some. To be called again and again
  // by that thread alone, at the same time as Begin by any. Some nanoseconds,
  // more while many lines are on their way.
  bool Fetch(int thread);

 private:
  // Written by Begin and read by a thread, which may read half of another: then
  // it fetches what nobody reads.
  struct alignas(64) Plan {
    std::atomic<const uint8_t*> at{nullptr};
    std::atomic<int64_t> apart{0};
    std::atomic<int64_t> bytes{0};
    std::atomic<int> places{0};
    std::atomic<uint32_t> number{0};
    // Of the thread alone.
    uint32_t number_seen = 0;
    FirstReads reads;
    int64_t fetched = 0;  // of each place
  };

  // By what a loop reads: what followed. Forgotten when there are too many.
  std::unordered_map<const void*, std::vector<FirstReads>> followers_;
  const void* last_ = nullptr;
  std::vector<Plan> plans_;  // of each thread
};

}  // namespace onegrid::kernels

#endif  // KERNELS_BASE_READ_AHEAD_H_
