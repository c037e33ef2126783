#include "services/inference/per_layer_inputs.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/quant/dequantize.h"
#include "services/common/error_info.h"
#include "services/model/tensor_names.h"

namespace onegrid::inference {

PerLayerInputs::PerLayerInputs(const GemmaWeights& weights,
                               const Numerics& numerics, int64_t max_rows,
                               kernels::ThreadPool& pool)
    : weights_(weights),
      numerics_(numerics),
      pool_(pool),
      input_(numerics, pool) {
  const auto floats = [](int64_t count) {
    return kernels::AlignedBuffer<float>(static_cast<size_t>(count),
                                         kernels::Lifetime::kLong);
  };
  looked_up_ = floats(layers() * width());
  projected_ = floats(max_rows * layers() * width());
  inputs_ = floats(max_rows * layers() * width());
  gate_ = floats(max_rows * width());
}

absl::Status PerLayerInputs::LookUp(int32_t token) {
  const PerLayerTable& table = *weights_.per_layer;
  const int64_t all = layers() * width();
  const int64_t row_bytes =
      static_cast<int64_t>(table.rows.size()) / weights_.config.vocab_size;
  RETURN_IF_ERROR(quant::Dequantize(
      table.type, table.rows.subspan(token * row_bytes, row_bytes),
      absl::MakeSpan(looked_up_.data(), all)));
  if (std::all_of(looked_up_.data(), looked_up_.data() + all,
                  [](float value) { return std::isfinite(value); })) {
    return absl::OkStatus();
  }
  return common::MakeError(
      absl::StatusCode::kDataLoss, "CORRUPT_FILE",
      absl::StrCat("tensor ", model::kGgufPerLayerEmbedding,
                   " has a value that is not finite, at token ", token),
      {{"tensor", model::kGgufPerLayerEmbedding},
       {"token", absl::StrCat(token)}});
}

absl::Status PerLayerInputs::Embed(absl::Span<const int32_t> tokens,
                                   const float* x) {
  const model::GemmaConfig& c = weights_.config;
  const PerLayerTable& table = *weights_.per_layer;
  const int64_t all = layers() * width();
  rows_ = static_cast<int64_t>(tokens.size());
  input_.Set(x, rows_, c.hidden, cpu::CodeBits::k16);
  input_.Multiply(table.projection, projected_.data());
  cpu::Scale(projected_.data(), 1.0f / std::sqrt(static_cast<float>(c.hidden)),
             rows_ * all, projected_.data(), pool_, numerics_.isa);
  cpu::RmsNorm(projected_.data(), table.norm.data(), rows_ * layers(), width(),
               static_cast<float>(c.rms_eps), projected_.data(), pool_,
               numerics_.isa);
  const float token_scale = std::sqrt(static_cast<float>(width()));
  const float half_root = std::sqrt(0.5f);
  for (int64_t row = 0; row < rows_; ++row) {
    RETURN_IF_ERROR(LookUp(tokens[row]));
    const float* from = projected_.data() + row * all;
    const float* token = looked_up_.data();
    for (int64_t layer = 0; layer < layers(); ++layer) {
      float* to = inputs_.data() + (layer * rows_ + row) * width();
      for (int64_t i = 0; i < width(); ++i) {
        *to++ = (*from++ + *token++ * token_scale) * half_root;
      }
    }
  }
  return absl::OkStatus();
}

void PerLayerInputs::Keep(absl::Span<const RowRange> ranges) {
  // The target never passes what is still to be moved.
  float* to = inputs_.data();
  int64_t kept = 0;
  for (const RowRange& range : ranges) kept += range.count;
  for (int64_t layer = 0; layer < layers(); ++layer) {
    const float* from = inputs_.data() + layer * rows_ * width();
    for (const RowRange& range : ranges) {
      const int64_t count = range.count * width();
      std::memmove(to, from + range.begin * width(), count * sizeof(float));
      to += count;
    }
  }
  rows_ = kept;
}

void PerLayerInputs::Mix(int64_t layer, const float* x, float* branch) {
  const PerLayerInputWeights& w = *weights_.layers[layer].input;
  const int64_t count = rows_ * width();
  input_.Set(x, rows_, weights_.config.hidden, cpu::CodeBits::k8);
  input_.Multiply(w.gate, gate_.data());
  cpu::GeluMul(gate_.data(), inputs_.data() + layer * count, count,
               gate_.data(), pool_, numerics_.isa);
  input_.Set(gate_.data(), rows_, width(), cpu::CodeBits::k8);
  input_.Multiply(w.out, branch);
}

}  // namespace onegrid::inference
