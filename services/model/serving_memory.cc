#include "services/model/serving_memory.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid.h"
#include "services/common/error_info.h"
#include "services/model/tensor_names.h"

namespace onegrid::model {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kPageTokens = 64;
constexpr int64_t kValueGroup = 32;

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

absl::Status Unsupported(const std::string& what) {
  return common::MakeError(absl::StatusCode::kUnimplemented,
                           "UNSUPPORTED_SHAPE", what);
}

}  // namespace

int64_t PackedBytes(quant::GgmlType type, int64_t rows, int64_t cols) {
  return RoundUp(rows, kTileRows) * *quant::RowBytes(type, cols);
}

int64_t Int8KvBytes(const GemmaConfig& config, int64_t context_tokens) {
  int64_t bytes = 0;
  for (int64_t i = 0; i < config.layer_count(); ++i) {
    if (!config.HasKv(i)) continue;
    const GemmaLayer& layer = config.layers[i];
    const int64_t held =
        layer.global ? context_tokens
                     : std::min(context_tokens,
                                config.sliding_window + kServedStepTokens +
                                    kServedRollback + kPageTokens);
    bytes += RoundUp(held, kPageTokens) * layer.kv_heads *
             (2 * layer.head_dim + 8 + layer.head_dim / kValueGroup * 2);
  }
  return bytes;
}

absl::Status CheckServedShape(const GemmaConfig& config) {
  for (const GemmaLayer& layer : config.layers) {
    const int64_t d = layer.head_dim;
    if (d < 32 || d > 512 || (d & (d - 1)) != 0) {
      return Unsupported(absl::StrCat(
          "heads of ", d, ": expected a power of two from 32 to 512"));
    }
  }
  for (const LinearSpec& spec : GemmaLinears(config)) {
    if (spec.in % quant::kGroup != 0) {
      return Unsupported(absl::StrCat("a matrix has ", spec.in,
                                      " inputs: expected a multiple of ",
                                      quant::kGroup));
    }
  }
  return absl::OkStatus();
}

}  // namespace onegrid::model
