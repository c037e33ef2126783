#include <cstdint>
#include <thread>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/quant/ggml_types.h"

namespace onegrid::cpu {
namespace {

// The last argument of every benchmark is the number of threads; 0: all.
kernels::ThreadPool& Pool(const benchmark::State& state, int argument) {
  static auto* one = new kernels::ThreadPool(1);
  static auto* all = new kernels::ThreadPool(
      static_cast<int>(std::thread::hardware_concurrency()));
  return state.range(argument) == 1 ? *one : *all;
}

// Blocks of `bytes` bytes whose f16 scale is 0.01.
std::vector<uint8_t> Blocks(int64_t count, int64_t bytes) {
  std::vector<uint8_t> blocks(static_cast<size_t>(count * bytes));
  uint32_t state = 1;
  for (uint8_t& byte : blocks) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<uint8_t>(state >> 24);
  }
  for (int64_t i = 0; i < count; ++i) {
    blocks[static_cast<size_t>(i * bytes)] = 0x1f;
    blocks[static_cast<size_t>(i * bytes + 1)] = 0x21;
  }
  return blocks;
}

std::vector<float> Activations(int64_t m, int64_t k) {
  std::vector<float> x(static_cast<size_t>(m * k));
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(static_cast<int>(i * 37 % 255) - 127);
  }
  return x;
}

void Report(benchmark::State& state, int64_t m, int64_t n, int64_t k,
            int64_t bytes) {
  state.counters["GOPS"] =
      benchmark::Counter(2e-9 * static_cast<double>(m * n * k),
                         benchmark::Counter::kIsIterationInvariantRate);
  state.counters["weight_GB/s"] =
      benchmark::Counter(1e-9 * static_cast<double>(bytes),
                         benchmark::Counter::kIsIterationInvariantRate);
}

using quant::GgmlType;

// Random blocks of a type.
PackedLinear Weights(GgmlType type, int64_t n, int64_t k,
                     kernels::ThreadPool& pool) {
  const auto traits = *quant::TraitsOf(type);
  return *PackedLinear::FromBlocks(
      type, Blocks(n * k / traits.block_elements, traits.block_bytes), n, k,
      pool);
}

void Product(benchmark::State& state, GgmlType type, CodeBits bits,
             kernels::Isa isa) {
  if (!kernels::IsaSupported(isa)) return state.SkipWithError("unsupported");
  const int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  kernels::ThreadPool& pool = Pool(state, 3);
  const PackedLinear w = Weights(type, n, k, pool);
  QuantizedActivations x;
  QuantizeActivations(Activations(m, k), m, k, bits, &x, pool, isa);
  std::vector<float> out(static_cast<size_t>(m * n));
  for (auto _ : state) Linear(x, w, out.data(), pool, isa);
  Report(state, m, n, k, w.bytes());
}

void Int2(benchmark::State& state, kernels::Isa isa) {
  Product(state, GgmlType::kQ2_0, CodeBits::k8, isa);
}

void Int4(benchmark::State& state, kernels::Isa isa) {
  Product(state, GgmlType::kQ4_0, CodeBits::k8, isa);
}

void Int4Wide(benchmark::State& state, kernels::Isa isa) {
  Product(state, GgmlType::kQ4_0, CodeBits::k16, isa);
}

void Head(benchmark::State& state, kernels::Isa isa) {
  Product(state, GgmlType::kQ8_0, CodeBits::k16, isa);
}

void Int4F32(benchmark::State& state, kernels::Isa isa) {
  if (!kernels::IsaSupported(isa)) return state.SkipWithError("unsupported");
  const int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  kernels::ThreadPool& pool = Pool(state, 3);
  const PackedLinear w = Weights(GgmlType::kQ4_0, n, k, pool);
  const std::vector<float> x = Activations(m, k);
  std::vector<float> out(static_cast<size_t>(m * n));
  for (auto _ : state) LinearF32(x.data(), m, w, out.data(), pool, isa);
  Report(state, m, n, k, w.bytes());
}

void Quantize(benchmark::State& state, kernels::Isa isa) {
  if (!kernels::IsaSupported(isa)) return state.SkipWithError("unsupported");
  const int64_t m = state.range(0), k = state.range(1);
  const std::vector<float> x = Activations(m, k);
  QuantizedActivations q;
  for (auto _ : state) {
    QuantizeActivations(x, m, k, CodeBits::k8, &q, Pool(state, 2), isa);
  }
  state.counters["GB/s"] =
      benchmark::Counter(4e-9 * static_cast<double>(m * k),
                         benchmark::Counter::kIsIterationInvariantRate);
}

using benchmark::internal::Benchmark;

// The linear layers of Gemma 3 270M and of a larger model.
void Shapes(Benchmark* b, int64_t threads) {
  for (int64_t m : {1, 4, 8, 16, 32, 128, 512}) {
    b->Args({m, 2048, 640, threads});
    b->Args({m, 640, 2048, threads});
    b->Args({m, 8192, 2048, threads});
  }
}
void HeadShapes(Benchmark* b, int64_t threads) {
  for (int64_t m : {1, 4, 8, 16}) b->Args({m, 262144, 640, threads});
}

// One thread is measured in processor time, which other processes disturb
// least; all threads in elapsed time.
void OneThread(Benchmark* b) { Shapes(b, 1); }
void AllThreads(Benchmark* b) {
  Shapes(b, 0);
  b->UseRealTime();
}
void HeadOneThread(Benchmark* b) { HeadShapes(b, 1); }
void HeadAllThreads(Benchmark* b) {
  HeadShapes(b, 0);
  b->UseRealTime();
}

constexpr kernels::Isa kAmx = kernels::Isa::kAmx;
constexpr kernels::Isa kAvx512 = kernels::Isa::kAvx512Vnni;
constexpr kernels::Isa kAvxVnni = kernels::Isa::kAvxVnni;
constexpr kernels::Isa kAvx2 = kernels::Isa::kAvx2;

BENCHMARK_CAPTURE(Int2, amx, kAmx)->Apply(OneThread);
BENCHMARK_CAPTURE(Int2, avx512, kAvx512)->Apply(OneThread);
BENCHMARK_CAPTURE(Int2, avx2, kAvx2)->Apply(OneThread);
BENCHMARK_CAPTURE(Int4, amx, kAmx)->Apply(OneThread);
BENCHMARK_CAPTURE(Int4, amx, kAmx)->Apply(AllThreads);
BENCHMARK_CAPTURE(Int4Wide, amx, kAmx)->Apply(OneThread);
BENCHMARK_CAPTURE(Int4Wide, avx512, kAvx512)->Apply(OneThread);
BENCHMARK_CAPTURE(Int4, avx512, kAvx512)->Apply(OneThread);
BENCHMARK_CAPTURE(Int4, avx512, kAvx512)->Apply(AllThreads);
BENCHMARK_CAPTURE(Int4, avx2_vnni, kAvxVnni)->Apply(OneThread);
BENCHMARK_CAPTURE(Int4, avx2, kAvx2)->Apply(OneThread);
BENCHMARK_CAPTURE(Int4, avx2, kAvx2)->Apply(AllThreads);
BENCHMARK_CAPTURE(Int4F32, avx512, kAvx512)->Apply(OneThread);
BENCHMARK_CAPTURE(Int4F32, avx2, kAvx2)->Apply(OneThread);
BENCHMARK_CAPTURE(Head, amx, kAmx)->Apply(HeadOneThread);
BENCHMARK_CAPTURE(Head, amx, kAmx)->Apply(HeadAllThreads);
BENCHMARK_CAPTURE(Head, avx512, kAvx512)->Apply(HeadOneThread);
BENCHMARK_CAPTURE(Head, avx512, kAvx512)->Apply(HeadAllThreads);
BENCHMARK_CAPTURE(Head, avx2, kAvx2)->Apply(HeadOneThread);
BENCHMARK_CAPTURE(Head, avx2, kAvx2)->Apply(HeadAllThreads);
BENCHMARK_CAPTURE(Quantize, avx512, kAvx512)
    ->Args({1, 640, 1})
    ->Args({512, 2048, 1});
BENCHMARK_CAPTURE(Quantize, avx2, kAvx2)->Args({512, 2048, 1});

}  // namespace
}  // namespace onegrid::cpu
