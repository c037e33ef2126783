#include "services/inference/lora.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/float_types.h"
#include "services/common/error_info.h"

namespace onegrid::inference {
namespace {

// Twice this many columns are a run of the bf16 kernels.
constexpr int64_t kRankStep = 16;

std::optional<LoraTarget> TargetOf(const model::LinearSpec& spec) {
  static const auto& targets =
      *new absl::flat_hash_map<std::string, LoraTarget>{
          {"q_proj", LoraTarget::kQ},       {"k_proj", LoraTarget::kK},
          {"v_proj", LoraTarget::kV},       {"o_proj", LoraTarget::kO},
          {"gate_proj", LoraTarget::kGate}, {"up_proj", LoraTarget::kUp},
          {"down_proj", LoraTarget::kDown}};
  const auto found = targets.find(spec.kind);
  if (found == targets.end() || spec.layer < 0 || spec.experts != 1) {
    return std::nullopt;
  }
  return found->second;
}

absl::Status Unsupported(const model::LinearSpec& spec,
                         absl::string_view what) {
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "UNSUPPORTED_ADAPTER",
      absl::StrCat("the adapter's ", spec.hf_name, " ", what),
      {{"item", spec.hf_name}});
}

// Row-major bf16 with both parts of each value.
class SplitMatrix {
 public:
  SplitMatrix(int64_t rows, int64_t cols)
      : cols_(cols), values_(static_cast<size_t>(rows * cols), 0) {}

  void Set(int64_t row, int64_t col, int64_t second_row, int64_t second_col,
           float value) {
    const uint16_t first = kernels::FloatToBf16(value);
    values_[row * cols_ + col] = first;
    values_[second_row * cols_ + second_col] =
        kernels::FloatToBf16(value - kernels::Bf16ToFloat(first));
  }

  absl::StatusOr<cpu::PackedLinear> Pack(kernels::ThreadPool& pool) const {
    return cpu::PackedLinear::FromBlocks(
        quant::GgmlType::kBF16,
        absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(values_.data()),
                            values_.size() * sizeof(uint16_t)),
        static_cast<int64_t>(values_.size()) / cols_, cols_, pool);
  }

 private:
  const int64_t cols_;
  std::vector<uint16_t> values_;
};

float FloatAt(absl::Span<const uint8_t> bytes, int64_t index) {
  float value;
  std::memcpy(&value, bytes.data() + index * sizeof(float), sizeof(float));
  return value;
}

absl::StatusOr<LoraPair> Pack(const model::AdapterPair& pair,
                              kernels::ThreadPool& pool) {
  const int64_t in = pair.spec.in, out = pair.spec.out;
  const int64_t rank = (pair.rank + kRankStep - 1) / kRankStep * kRankStep;
  SplitMatrix a(2 * rank, in), b(out, 2 * rank);
  for (int64_t r = 0; r < pair.rank; ++r) {
    for (int64_t i = 0; i < in; ++i) {
      a.Set(r, i, rank + r, i, FloatAt(pair.a, r * in + i));
    }
    for (int64_t o = 0; o < out; ++o) {
      const double value = FloatAt(pair.b, o * pair.rank + r) * pair.scale;
      b.Set(o, r, o, rank + r, static_cast<float>(value));
    }
  }
  auto packed_a = a.Pack(pool);
  auto packed_b = b.Pack(pool);
  if (!packed_a.ok() || !packed_b.ok()) {
    return Unsupported(pair.spec, "has a value beyond bf16's range");
  }
  return LoraPair{rank, *std::move(packed_a), *std::move(packed_b)};
}

}  // namespace

absl::StatusOr<LoraAdapter> LoraAdapter::Create(
    const model::Adapter& adapter, const std::string& sha256,
    const model::GemmaConfig& config, kernels::ThreadPool& pool) {
  LoraAdapter result;
  result.sha256_ = sha256;
  result.layers_.resize(static_cast<size_t>(config.layer_count()));
  for (const model::AdapterPair& pair : adapter.pairs()) {
    const std::optional<LoraTarget> target = TargetOf(pair.spec);
    if (!target.has_value()) {
      return Unsupported(pair.spec, "cannot be adapted while serving");
    }
    ASSIGN_OR_RETURN(LoraPair packed, Pack(pair, pool));
    result.bytes_ += packed.a.bytes() + packed.b.bytes();
    result.max_rank_ = std::max(result.max_rank_, pair.rank);
    ++result.linears_;
    result.layers_[pair.spec.layer][static_cast<size_t>(*target)] =
        std::move(packed);
  }
  return result;
}

std::string SharingSalt(const LoraAdapter* adapter, absl::string_view salt) {
  // A digest has no line break.
  return absl::StrCat(adapter == nullptr ? "" : adapter->sha256(), "\n", salt);
}

}  // namespace onegrid::inference
