// Cost of encoding and decoding on one thread, in weights per second.

#include <cstdint>
#include <random>
#include <vector>

#include "absl/types/span.h"
#include "benchmark/benchmark.h"
#include "kernels/quant/dequantize.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid.h"
#include "kernels/quant/q8_0.h"

namespace onegrid::quant {
namespace {

constexpr int64_t kRows = 2048;
constexpr int64_t kCols = 640;

std::vector<float> Weights() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> w(kRows * kCols);
  for (float& v : w) v = normal(random);
  return w;
}

void BM_EncodeInt4G32(benchmark::State& state) {
  const auto w = Weights();
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        EncodeMatrix(w, kRows, kCols, kInt4G32)->codes.data());
  }
  state.SetItemsProcessed(state.iterations() * kRows * kCols);
}
BENCHMARK(BM_EncodeInt4G32)->Unit(benchmark::kMillisecond);

void BM_EncodeQ8_0(benchmark::State& state) {
  const auto w = Weights();
  for (auto _ : state) {
    benchmark::DoNotOptimize(EncodeQ8_0(w, kRows, kCols)->data());
  }
  state.SetItemsProcessed(state.iterations() * kRows * kCols);
}
BENCHMARK(BM_EncodeQ8_0)->Unit(benchmark::kMillisecond);

void BM_Dequantize(benchmark::State& state) {
  const auto type = static_cast<GgmlType>(state.range(0));
  const int64_t elements = kRows * 768;
  // The bytes 0x01 make small finite scales and mixed codes.
  const std::vector<uint8_t> blocks(*RowBytes(type, elements), 1);
  std::vector<float> out(elements);
  for (auto _ : state) {
    (void)Dequantize(type, blocks, absl::MakeSpan(out));
    benchmark::DoNotOptimize(out.data());
  }
  state.SetItemsProcessed(state.iterations() * elements);
  state.SetLabel(TraitsOf(type)->name);
}
BENCHMARK(BM_Dequantize)
    ->Arg(static_cast<int64_t>(GgmlType::kF16))
    ->Arg(static_cast<int64_t>(GgmlType::kQ4_0))
    ->Arg(static_cast<int64_t>(GgmlType::kQ5_0))
    ->Arg(static_cast<int64_t>(GgmlType::kQ8_0))
    ->Arg(static_cast<int64_t>(GgmlType::kQ4_K))
    ->Arg(static_cast<int64_t>(GgmlType::kQ6_K))
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace onegrid::quant
