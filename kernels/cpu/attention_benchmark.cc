#include <cstdint>
#include <thread>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/kv_cache.h"

namespace onegrid::cpu {
namespace {

// A layer of Gemma 3 270M: 4 query heads, 1 key/value head, 256 wide.
constexpr int64_t kHeads = 4;
constexpr int64_t kHeadDim = 256;

std::vector<float> Values(int64_t count) {
  std::vector<float> x(static_cast<size_t>(count));
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(static_cast<int>(i * 37 % 255) - 127) / 64.0f;
  }
  return x;
}

// Arguments: queries, tokens in the cache, window. One thread, in processor
// time, which other processes disturb least.
template <typename Cache>
void Attention(benchmark::State& state, kernels::Isa isa) {
  if (!kernels::IsaSupported(isa)) return state.SkipWithError("unsupported");
  const int64_t m = state.range(0), tokens = state.range(1);
  const int64_t window = state.range(2);
  kernels::ThreadPool pool(1);
  Cache cache(KvLayout{kHeadDim, 1, tokens});
  const std::vector<float> kv = Values(tokens * kHeadDim);
  cache.Append(kv.data(), kv.data(), tokens, pool);
  const std::vector<float> q = Values(m * kHeads * kHeadDim);
  std::vector<float> out(q.size());
  const AttendItem<Cache> item = {&cache, q.data(), m, tokens - m, out.data()};
  for (auto _ : state) {
    Attend({&item, 1}, {kHeads, window, 0.0625f}, pool, isa);
  }
  double pairs = 0;
  for (int64_t p = tokens - m; p < tokens; ++p) {
    pairs += static_cast<double>(window > 0 && window < p + 1 ? window : p + 1);
  }
  state.counters["GOPS"] =
      benchmark::Counter(4e-9 * pairs * static_cast<double>(kHeads * kHeadDim),
                         benchmark::Counter::kIsIterationInvariantRate);
}

void AttentionInt8(benchmark::State& state, kernels::Isa isa) {
  Attention<KvInt8>(state, isa);
}
void AttentionF32(benchmark::State& state, kernels::Isa isa) {
  Attention<KvF32>(state, isa);
}
void AttentionBf16(benchmark::State& state, kernels::Isa isa) {
  Attention<KvBf16>(state, isa);
}

// Arguments: tokens of each sequence, sequences that decode together. Layers
// with caches of their own take turns, 300,000 tokens in all, so that none is
// in a core's caches when its turn comes. Two threads, in elapsed time.
void Decode(benchmark::State& state, kernels::Isa isa) {
  if (!kernels::IsaSupported(isa)) return state.SkipWithError("unsupported");
  const int64_t tokens = state.range(0), sequences = state.range(1);
  kernels::ThreadPool pool(2);
  const std::vector<float> kv = Values(tokens * kHeadDim);
  const std::vector<float> q = Values(sequences * kHeads * kHeadDim);
  std::vector<float> out(q.size());
  std::vector<KvInt8> caches;
  for (int64_t held = 0; held < 300'000; held += tokens) {
    caches.emplace_back(KvLayout{kHeadDim, 1, tokens});
    caches.back().Append(kv.data(), kv.data(), tokens, pool);
  }
  const size_t layers = caches.size() / static_cast<size_t>(sequences);
  size_t next = 0;
  for (auto _ : state) {
    std::vector<AttendItem<KvInt8>> items;
    for (int64_t i = 0; i < sequences; ++i) {
      const int64_t row = i * kHeads * kHeadDim;
      items.push_back(
          {&caches[next++], q.data() + row, 1, tokens - 1, out.data() + row});
    }
    Attend(items, {kHeads, 0, 0.0625f}, pool, isa);
    if (next >= layers * static_cast<size_t>(sequences)) next = 0;
  }
  state.counters["GB/s"] = benchmark::Counter(
      1e-9 * static_cast<double>(tokens * sequences *
                                 KvInt8::TokenBytes(kHeadDim)),
      benchmark::Counter::kIsIterationInvariantRate);
}

void Append(benchmark::State& state, kernels::Isa isa) {
  if (!kernels::IsaSupported(isa)) return state.SkipWithError("unsupported");
  const int64_t tokens = state.range(0);
  kernels::ThreadPool pool(1);
  KvInt8 cache(KvLayout{kHeadDim, 1, tokens});
  const std::vector<float> kv = Values(tokens * kHeadDim);
  for (auto _ : state) {
    cache.Truncate(0);
    cache.Append(kv.data(), kv.data(), tokens, pool, isa);
  }
}

void Gelu(benchmark::State& state, kernels::Isa isa) {
  if (!kernels::IsaSupported(isa)) return state.SkipWithError("unsupported");
  kernels::ThreadPool pool(1);
  const std::vector<float> x = Values(state.range(0));
  std::vector<float> out(x.size());
  for (auto _ : state) {
    GeluMul(x.data(), x.data(), state.range(0), out.data(), pool, isa);
  }
}

void Norm(benchmark::State& state, kernels::Isa isa) {
  if (!kernels::IsaSupported(isa)) return state.SkipWithError("unsupported");
  kernels::ThreadPool pool(1);
  const int64_t m = state.range(0), k = state.range(1);
  const std::vector<float> x = Values(m * k), weight = Values(k);
  std::vector<float> out(x.size());
  for (auto _ : state) {
    RmsNorm(x.data(), weight.data(), m, k, 1e-6f, out.data(), pool, isa);
  }
}

void Shapes(benchmark::internal::Benchmark* b) {
  b->Args({1, 512, 512})->Args({1, 8192, 0})->Args({512, 512, 512});
  b->Args({512, 2048, 512})->Args({512, 8192, 0});
}

void DecodeShapes(benchmark::internal::Benchmark* b) {
  b->Args({512, 1})->Args({8192, 1})->Args({513, 8})->UseRealTime();
}

constexpr kernels::Isa kAmx = kernels::Isa::kAmx;
constexpr kernels::Isa kAvx512 = kernels::Isa::kAvx512Vnni;
constexpr kernels::Isa kAvx2 = kernels::Isa::kAvx2;

BENCHMARK_CAPTURE(AttentionInt8, amx, kAmx)->Apply(Shapes);
BENCHMARK_CAPTURE(AttentionInt8, avx512, kAvx512)->Apply(Shapes);
BENCHMARK_CAPTURE(AttentionInt8, avx2, kAvx2)->Apply(Shapes);
BENCHMARK_CAPTURE(Decode, amx, kAmx)->Apply(DecodeShapes);
BENCHMARK_CAPTURE(Decode, avx512, kAvx512)->Apply(DecodeShapes);
BENCHMARK_CAPTURE(Decode, avx2, kAvx2)->Apply(DecodeShapes);
BENCHMARK_CAPTURE(AttentionF32, avx512, kAvx512)->Apply(Shapes);
BENCHMARK_CAPTURE(AttentionBf16, avx512, kAvx512)->Apply(Shapes);
BENCHMARK_CAPTURE(Append, avx512, kAvx512)->Arg(1)->Arg(512);
BENCHMARK_CAPTURE(Gelu, avx512, kAvx512)->Arg(2048)->Arg(512 * 2048);
BENCHMARK_CAPTURE(Gelu, avx2, kAvx2)->Arg(512 * 2048);
BENCHMARK_CAPTURE(Norm, avx512, kAvx512)->Args({512, 640});

}  // namespace
}  // namespace onegrid::cpu
