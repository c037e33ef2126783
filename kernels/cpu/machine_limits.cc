#include "kernels/cpu/machine_limits.h"

#include <emmintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/check.h"
#include "kernels/cpu/peak_kernels.h"

namespace onegrid::cpu {
namespace {

// What a thread reads at once.
constexpr int64_t kReadGrain = int64_t{1} << 20;
constexpr int kPasses = 5;
// Some ten milliseconds.
constexpr int64_t kPeakRounds = 5'000'000;
// Ranges that each thread takes of them, so that a late one costs little.
constexpr int64_t kPeakRanges = 50;

// Independent sums: enough to hide the latency of an addition.
constexpr int kSums = 8;

void Int8DotsPortable(int64_t rounds) {
  __m128i sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm_setzero_si128();
  __m128i a = _mm_set1_epi16(1);
  __m128i b = _mm_set1_epi16(1);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 8
    for (int i = 0; i < kSums; ++i) {
      // Opaque, so that no product is taken out of the loop or shared.
      asm volatile("" : "+x"(a), "+x"(b));
      sums[i] = _mm_add_epi32(sums[i], _mm_madd_epi16(a, b));
    }
  }
  for (int i = 0; i < kSums; ++i) asm volatile("" : : "x"(sums[i]));
}

const PeakKernels& PeakKernelsFor(kernels::Isa isa) {
  KERNELS_CHECK(kernels::IsaSupported(isa));
  switch (isa) {
    case kernels::Isa::kAmx:
      return kPeakKernelsAmx;
    case kernels::Isa::kAvx512Vnni:
      return kPeakKernelsAvx512;
    case kernels::Isa::kAvxVnni:
      return kPeakKernelsAvxVnni;
    case kernels::Isa::kAvx2:
      return kPeakKernelsAvx2;
    case kernels::Isa::kReference:
      break;
  }
  return kPeakKernelsPortable;
}

double MedianSeconds(absl::FunctionRef<void()> run) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds;
  run();  // Wakes the threads.
  for (int pass = 0; pass < kPasses; ++pass) {
    const Clock::time_point start = Clock::now();
    run();
    seconds.push_back(
        std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + kPasses / 2,
                   seconds.end());
  return seconds[kPasses / 2];
}

// Reads kPlaces equal parts side by side. Fetching ahead is up to half as fast
// again where memory is far away.
template <int kPlaces>
void ReadAll(const uint8_t* bytes, int64_t count) {
  __m128i sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm_setzero_si128();
  const auto* at = reinterpret_cast<const __m128i*>(bytes);
  constexpr int64_t kAhead = 4096 / kPlaces / sizeof(__m128i);
  const int64_t part = count / 16 / kPlaces;
  for (int64_t n = 0; n < part; n += kSums) {
#pragma GCC unroll 4
    for (int64_t from = n; from < count / 16; from += part) {
      _mm_prefetch(at + from + kAhead, _MM_HINT_T0);
      _mm_prefetch(at + from + kAhead + kSums / 2, _MM_HINT_T0);
#pragma GCC unroll 8
      for (int i = 0; i < kSums; ++i) {
        sums[i] = _mm_add_epi64(sums[i], _mm_load_si128(at + from + i));
      }
    }
  }
  for (int i = 0; i < kSums; ++i) asm volatile("" : : "x"(sums[i]));
}

double ReadGbPerS(int64_t bytes, kernels::ThreadPool& pool) {
  bytes = (bytes + kReadGrain - 1) / kReadGrain * kReadGrain;
  const kernels::AlignedBuffer<uint8_t> memory(static_cast<size_t>(bytes));
  double best = 0;
  for (const auto read : {ReadAll<1>, ReadAll<4>}) {
    const double seconds = MedianSeconds([&] {
      pool.ParallelFor(bytes, kReadGrain, [&](int64_t begin, int64_t end, int) {
        read(memory.data() + begin, end - begin);
      });
    });
    best = std::max(best, 1e-9 * static_cast<double>(bytes) / seconds);
  }
  return best;
}

}  // namespace

const PeakKernels kPeakKernelsPortable = {Int8DotsPortable, kSums * 8 * 2};

MachineLimits MeasureMachineLimits(kernels::ThreadPool& pool,
                                   int64_t read_bytes, kernels::Isa isa) {
  KERNELS_CHECK(read_bytes > 0);
  MachineLimits limits;
  limits.read_gb_per_s = ReadGbPerS(read_bytes, pool);
  const PeakKernels& peak = PeakKernelsFor(isa);
  const int64_t rounds = kPeakRounds * pool.size();
  const double seconds = MedianSeconds([&] {
    pool.ParallelFor(
        rounds, kPeakRounds / kPeakRanges,
        [&](int64_t begin, int64_t end, int) { peak.int8_dots(end - begin); });
  });
  limits.int8_gops =
      1e-9 * static_cast<double>(rounds * peak.ops_per_round) / seconds;
  return limits;
}

}  // namespace onegrid::cpu
