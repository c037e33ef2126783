#ifndef KERNELS_BASE_THREAD_POOL_H_
#define KERNELS_BASE_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/base/read_ahead.h"

namespace onegrid::kernels {

// A fixed set of threads for loops of a few microseconds to milliseconds.
//
// The calling thread takes part in every loop, so ThreadPool(1) starts no
// thread and ThreadPool(n) starts n - 1. An idle thread spins for a tenth of a
// millisecond before it sleeps, so back-to-back loops cost no system call. A
// thread that wakes up late is never waited for: the others take its share.
//
// Thread-safe: calls from several threads run one after another. A loop started
// inside a loop runs entirely on the thread that started it.
class ThreadPool {
 public:
  // Called with a non-empty range [begin, end) and the index of the thread that
  // runs it, 0 <= worker < size(). No two ranges run at once with one worker.
  using Body = absl::FunctionRef<void(int64_t begin, int64_t end, int worker)>;

  // threads >= 1, counting the caller.
  explicit ThreadPool(int threads);
  // No loop may be running.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(shares_.size()); }

  // Splits [0, n) into ranges of `grain` (the last may be shorter; grain >= 1)
  // and returns when all are done. A thread takes, in ascending order, those of
  // its own share, the worker-th of size() equal ones, and then what others
  // have left: so rows that one loop writes and the next one reads mostly stay
  // in one thread's cache. What the bodies wrote is visible to the caller. The
  // body must not throw.
  void ParallelFor(int64_t n, int64_t grain, Body body);

  // The same of a loop in which each thread first reads much memory: what
  // `reads` stands for, and in it what first(worker) says (ReadAhead). Threads
  // that wait for it fetch that, if it followed the loop before it of this kind
  // the last time too.
  struct Reading {
    const void* reads;
    absl::FunctionRef<FirstReads(int worker)> first;
  };
  void ParallelFor(int64_t n, int64_t grain, const Reading& reading, Body body);

  // True on a thread that is running a range of this pool.
  bool InLoop() const;

  // A grain that makes about four ranges per thread.
  int64_t GrainFor(int64_t n) const;

 private:
  void WorkerLoop(int worker);
  // `reading` may be null.
  void Run(int64_t n, int64_t grain, const Reading* reading, Body body);
  // Ranges of one worker's share, in a cache line of its own.
  struct alignas(64) Share {
    // Loop number in the upper 32 bits, ranges not yet taken in the lower.
    // Taking one is a compare-and-swap, so a late thread cannot take from a
    // loop that has ended, and the fields of the loop stay valid while one is
    // held.
    std::atomic<uint64_t> ticket{0};
  };

  // First range of a share; of share size(), the number of ranges.
  int64_t FirstRange(int share) const { return ranges_ * share / size(); }
  // Runs ranges of the current loop until none is left to take.
  void TakeRanges(int worker);
  void TakeShare(int share, int worker);
  bool WorkLeft() const;

  std::atomic<int64_t> ranges_done_{0};
  std::atomic<uint32_t> wake_{0};
  std::atomic<bool> stop_{false};
  const Body* body_ = nullptr;
  int64_t n_ = 0;
  int64_t grain_ = 1;
  int64_t ranges_ = 0;
  uint32_t loop_ = 0;
  std::vector<Share> shares_;
  ReadAhead read_ahead_;
  std::mutex callers_;
  std::vector<std::thread> threads_;
};

}  // namespace onegrid::kernels

#endif  // KERNELS_BASE_THREAD_POOL_H_
