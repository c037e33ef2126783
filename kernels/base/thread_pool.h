#ifndef KERNELS_BASE_THREAD_POOL_H_
#define KERNELS_BASE_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace onegrid::kernels {

// A fixed set of threads for loops of a few microseconds to milliseconds.
//
// The calling thread takes part in every loop, so ThreadPool(1) starts no
// thread and ThreadPool(n) starts n - 1. An idle thread spins for some tens of
// microseconds before it sleeps, so back-to-back loops cost no system call. A
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

  int size() const { return static_cast<int>(threads_.size()) + 1; }

  // Splits [0, n) into ranges of `grain` (the last may be shorter; grain >= 1),
  // hands them out in ascending order to whoever is free and returns when all
  // are done. What the bodies wrote is then visible to the caller. The body
  // must not throw.
  void ParallelFor(int64_t n, int64_t grain, Body body);

  // True on a thread that is running a range of this pool.
  bool InLoop() const;

  // A grain that makes about four ranges per thread.
  int64_t GrainFor(int64_t n) const;

 private:
  void WorkerLoop(int worker);
  // Runs ranges of the current loop until none is left to take.
  void TakeRanges(int worker);
  bool WorkLeft() const;

  // Loop number in the upper 32 bits, ranges not yet taken in the lower. Taking
  // one is a compare-and-swap, so a late thread cannot take from a loop that
  // has ended, and the fields below stay valid while a range is held.
  std::atomic<uint64_t> ticket_{0};
  std::atomic<int64_t> ranges_done_{0};
  std::atomic<uint32_t> wake_{0};
  std::atomic<bool> stop_{false};
  const Body* body_ = nullptr;
  int64_t n_ = 0;
  int64_t grain_ = 1;
  int64_t ranges_ = 0;
  uint32_t loop_ = 0;
  std::mutex callers_;
  std::vector<std::thread> threads_;
};

}  // namespace onegrid::kernels

#endif  // KERNELS_BASE_THREAD_POOL_H_
