#include "services/model/tuning_memory.h"

#include <algorithm>
#include <vector>

#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid.h"
#include "services/model/serving_memory.h"
#include "services/model/tensor_names.h"

namespace onegrid::model {
namespace {

constexpr double kFloat = 4;
// LibTorch itself, the tokenizer, and examples as tokens.
constexpr double kProgram = 350e6;
// Positions whose logits are held at once (services/finetuner/head_loss.h).
constexpr double kHeadPositions = 64;
// What a backward pass holds over what the forward pass left for it, and what
// the allocator leaves unused: measured.
constexpr double kBackward = 1.25;
constexpr double kUnused = 1.05;

struct Sizes {
  double linears = 0;  // elements
  double embedding = 0;
  double per_layer_table = 0;
  double per_layer_projection = 0;
  double own_head = 0;  // if it is not the embedding
  double adapter = 0;
  double file = 0;  // bytes of the base
};

Sizes SizesOf(const GemmaConfig& config, int64_t rank) {
  Sizes sizes;
  for (const LinearSpec& spec : GemmaLinears(config)) {
    const double elements =
        static_cast<double>(spec.out) * static_cast<double>(spec.in);
    sizes.linears += elements;
    if (spec.gguf_name == kGgufHead) {
      sizes.own_head += elements;
    } else if (spec.layer < 0) {
      sizes.per_layer_projection += elements;
    } else if (spec.experts == 1) {
      sizes.adapter += static_cast<double>(rank * (spec.in + spec.out));
    }
    sizes.file += static_cast<double>(
        PackedBytes(quant::GgmlType::kQ4_0, spec.out, spec.in));
  }
  for (const TableSpec& spec : GemmaTables(config)) {
    const double elements =
        static_cast<double>(spec.rows) * static_cast<double>(spec.cols);
    (spec.gguf_name == kGgufEmbedding ? sizes.embedding
                                      : sizes.per_layer_table) += elements;
    sizes.file += static_cast<double>(
        PackedBytes(quant::GgmlType::kQ8_0, spec.rows, spec.cols));
  }
  return sizes;
}

// Bytes that one token leaves in a layer for the backward pass: the inputs of
// its norms, products, attention and gates. `element` is the size of the
// products' type.
double LayerBytesPerToken(const GemmaConfig& config, int64_t layer,
                          const TuningShape& shape, double element) {
  const GemmaLayer& l = config.layers[static_cast<size_t>(layer)];
  const auto hidden = static_cast<double>(config.hidden);
  const auto queries = static_cast<double>(config.heads * l.head_dim);
  const auto keys = static_cast<double>(l.kv_heads * l.head_dim);
  const auto scores = static_cast<double>(config.heads * shape.sequence_tokens);
  // Two residuals; two inputs and two branches; projections, and queries, keys
  // and values normed and turned; heads; gate, up and their product.
  double elements = 4 * hidden + 2 * (queries + 2 * keys) + queries + scores +
                    3 * static_cast<double>(l.ff);
  double floats = 2 * hidden;
  if (config.per_layer_width > 0) {
    const auto width = static_cast<double>(config.per_layer_width);
    elements += 2 * hidden + 3 * width;
    floats += hidden + width;
  }
  if (config.experts > 0) {
    const auto used = static_cast<double>(config.experts_used);
    elements += used * (hidden + 3 * static_cast<double>(config.expert_ff));
    floats += used * hidden + 2 * hidden;
  }
  return elements * element + floats * kFloat;
}

}  // namespace

int64_t TuningBytes(const GemmaConfig& config, const TuningShape& shape) {
  const Sizes sizes = SizesOf(config, shape.rank);
  const double element = shape.bf16 ? 2 : kFloat;
  // A byte for each code and a float for each group's scale.
  const double group = kFloat / static_cast<double>(quant::kGroup);
  const double coded = 1 + group;
  // Codes of the base, those now, and those that the polish starts from.
  double bytes =
      coded * (3 * sizes.linears + sizes.embedding + sizes.per_layer_table);
  bytes +=
      kFloat * (sizes.embedding + sizes.per_layer_projection + sizes.own_head);
  // Teacher and student, and each one's head for the gradients.
  bytes += 2 * element * sizes.linears;
  if (shape.bf16) {
    bytes +=
        2 * element * (sizes.own_head > 0 ? sizes.own_head : sizes.embedding);
  }
  // Of each scale and of the adapter: itself, its gradient, and of the scales
  // two moments and the best so far.
  bytes += 5 * group * sizes.linears + 2 * kFloat * sizes.adapter;
  // Logits of teacher and student, and the student's in the products' type.
  bytes += kHeadPositions * static_cast<double>(config.vocab_size) *
           (2 * kFloat + (shape.bf16 ? element : 0) +
            (config.logit_softcap > 0 ? kFloat : 0));
  double left = 0;
  for (int64_t i = 0; i < config.layer_count(); ++i) {
    left += LayerBytesPerToken(config, i, shape, element);
  }
  bytes += kBackward * left * static_cast<double>(shape.sequence_tokens);
  return static_cast<int64_t>(kUnused * (bytes + sizes.file + kProgram));
}

}  // namespace onegrid::model
