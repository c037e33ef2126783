#include "kernels/base/thread_pool.h"

#include <algorithm>
#include <chrono>

#include "kernels/base/check.h"

namespace onegrid::kernels {
namespace {

// A pause takes 10 to 60 ns, so time is looked at after some.
constexpr int kSpinsAtOnce = 32;
constexpr std::chrono::microseconds kSpinBeforeSleep{100};
constexpr std::chrono::microseconds kSpinBeforeYield{30};

// Identifies the pool and index of the loop that this thread runs, if any.
thread_local const ThreadPool* running_pool = nullptr;
thread_local int running_worker = 0;

// Spins until done() or until `most` has passed; returns done(). Meanwhile
// works as long as work() says that there was some.
template <typename Done, typename Work>
bool SpinUntil(std::chrono::microseconds most, Done done, Work work) {
  const auto end = std::chrono::steady_clock::now() + most;
  do {
    for (int i = 0; i < kSpinsAtOnce; ++i) {
      if (done()) return true;
      if (!work()) __builtin_ia32_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

}  // namespace

ThreadPool::ThreadPool(int threads)
    : shares_(static_cast<size_t>(std::max(threads, 1))),
      read_ahead_(std::max(threads, 1)) {
  KERNELS_CHECK(threads >= 1);
  threads_.reserve(static_cast<size_t>(threads - 1));
  for (int worker = 1; worker < threads; ++worker) {
    threads_.emplace_back([this, worker] { WorkerLoop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_release);
  wake_.fetch_add(1, std::memory_order_acq_rel);
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool ThreadPool::InLoop() const { return running_pool == this; }

int64_t ThreadPool::GrainFor(int64_t n) const {
  return std::max<int64_t>(1, n / (int64_t{4} * size()));
}

void ThreadPool::ParallelFor(int64_t n, int64_t grain, Body body) {
  Run(n, grain, nullptr, body);
}

void ThreadPool::ParallelFor(int64_t n, int64_t grain, const Reading& reading,
                             Body body) {
  Run(n, grain, &reading, body);
}

void ThreadPool::Run(int64_t n, int64_t grain, const Reading* reading,
                     Body body) {
  KERNELS_CHECK(grain >= 1);
  if (n <= 0) return;
  if (running_pool == this) {
    body(0, n, running_worker);
    return;
  }
  const int64_t ranges = (n - 1) / grain + 1;
  KERNELS_CHECK(ranges <= UINT32_MAX);
  std::lock_guard<std::mutex> lock(callers_);
  const ThreadPool* outer_pool = running_pool;
  const int outer_worker = running_worker;
  running_pool = this;
  running_worker = 0;
  if (reading != nullptr && !threads_.empty()) {
    read_ahead_.Begin(reading->reads, reading->first);
  }
  if (ranges == 1 || threads_.empty()) {
    for (int64_t begin = 0; begin < n; begin += grain) {
      body(begin, std::min(n, begin + grain), 0);
    }
  } else {
    body_ = &body;
    n_ = n;
    grain_ = grain;
    ranges_ = ranges;
    ranges_done_.store(0, std::memory_order_relaxed);
    ++loop_;
    for (int share = 0; share < size(); ++share) {
      const int64_t count = FirstRange(share + 1) - FirstRange(share);
      shares_[static_cast<size_t>(share)].ticket.store(
          (static_cast<uint64_t>(loop_) << 32) | static_cast<uint64_t>(count),
          std::memory_order_release);
    }
    wake_.fetch_add(1, std::memory_order_acq_rel);
    wake_.notify_all();
    TakeRanges(0);
    const auto done = [&] {
      return ranges_done_.load(std::memory_order_acquire) == ranges;
    };
    if (!SpinUntil(kSpinBeforeYield, done,
                   [&] { return read_ahead_.Fetch(0); })) {
      while (!done()) std::this_thread::yield();
    }
  }
  running_pool = outer_pool;
  running_worker = outer_worker;
}

bool ThreadPool::WorkLeft() const {
  return std::any_of(shares_.begin(), shares_.end(), [](const Share& share) {
    const uint64_t ticket = share.ticket.load(std::memory_order_acquire);
    return static_cast<uint32_t>(ticket) != 0;
  });
}

void ThreadPool::TakeRanges(int worker) {
  for (int i = 0; i < size(); ++i) TakeShare((worker + i) % size(), worker);
}

void ThreadPool::TakeShare(int share, int worker) {
  std::atomic<uint64_t>& shared = shares_[static_cast<size_t>(share)].ticket;
  uint64_t ticket = shared.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(ticket) != 0) {
    if (!shared.compare_exchange_weak(ticket, ticket - 1,
                                      std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      continue;
    }
    const int64_t left = static_cast<int64_t>(static_cast<uint32_t>(ticket));
    const int64_t begin = (FirstRange(share + 1) - left) * grain_;
    (*body_)(begin, std::min(n_, begin + grain_), worker);
    ranges_done_.fetch_add(1, std::memory_order_acq_rel);
    ticket = shared.load(std::memory_order_acquire);
  }
}

void ThreadPool::WorkerLoop(int worker) {
  running_pool = this;
  running_worker = worker;
  while (true) {
    const uint32_t seen = wake_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_acquire)) return;
    TakeRanges(worker);
    const bool woken = SpinUntil(
        kSpinBeforeSleep,
        [&] { return wake_.load(std::memory_order_acquire) != seen; },
        [&] { return read_ahead_.Fetch(worker); });
    if (!woken && !WorkLeft()) wake_.wait(seen, std::memory_order_acquire);
  }
}

}  // namespace onegrid::kernels
