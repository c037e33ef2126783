#include "kernels/base/read_ahead.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace onegrid::kernels {
namespace {

constexpr int64_t kLineBytes = 64;
// More than the weight matrices of a model.
constexpr size_t kMostFollowers = 4096;

}  // namespace

ReadAhead::ReadAhead(int threads) : plans_(static_cast<size_t>(threads)) {
  KERNELS_CHECK(threads >= 1);
}

void ReadAhead::Begin(const void* what,
                      absl::FunctionRef<FirstReads(int)> first) {
  if (followers_.size() >= kMostFollowers) followers_.clear();
  if (last_ != nullptr) {
    std::vector<FirstReads>& reads = followers_[last_];
    reads.resize(plans_.size());
    for (size_t i = 0; i < reads.size(); ++i) {
      reads[i] = first(static_cast<int>(i));
    }
  }
  last_ = what;
  const auto expected = followers_.find(what);
  for (size_t i = 0; i < plans_.size(); ++i) {
    const FirstReads next =
        expected == followers_.end() ? FirstReads() : expected->second[i];
    Plan& plan = plans_[i];
    plan.at.store(next.at, std::memory_order_relaxed);
    plan.apart.store(next.apart, std::memory_order_relaxed);
    plan.bytes.store(next.bytes, std::memory_order_relaxed);
    plan.places.store(next.places, std::memory_order_relaxed);
    plan.number.fetch_add(1, std::memory_order_release);
  }
}

bool ReadAhead::Fetch(int thread) {
  Plan& plan = plans_[static_cast<size_t>(thread)];
  const uint32_t number = plan.number.load(std::memory_order_acquire);
  if (number != plan.number_seen) {
    plan.number_seen = number;
    plan.reads = {plan.at.load(std::memory_order_relaxed),
                  plan.apart.load(std::memory_order_relaxed),
                  plan.bytes.load(std::memory_order_relaxed),
                  plan.places.load(std::memory_order_relaxed)};
    const int64_t most = kMostBytes / std::max(plan.reads.places, 1);
    plan.reads.bytes = std::min(plan.reads.bytes, most);
    plan.fetched = 0;
  }
  const FirstReads& reads = plan.reads;
  if (reads.places <= 0 || plan.fetched >= reads.bytes) return false;
  for (int i = 0; i < reads.places; ++i) {
    __builtin_prefetch(reads.at + i * reads.apart + plan.fetched, /*rw=*/0,
                       /*locality=*/2);
  }
  plan.fetched += kLineBytes;
  return true;
}

}  // namespace onegrid::kernels
