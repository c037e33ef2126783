// The weights of one Gemma model, packed for the kernels.
#ifndef SERVICES_INFERENCE_GEMMA_WEIGHTS_H_
#define SERVICES_INFERENCE_GEMMA_WEIGHTS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/quant/ggml_types.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"

namespace onegrid::inference {

// A layer's own input, which is mixed in after its MLP (Gemma 4).
struct PerLayerInputWeights {
  cpu::PackedLinear gate;        // [width, hidden]
  cpu::PackedLinear out;         // [hidden, width]
  std::vector<float> post_norm;  // [hidden]
};

// Experts beside the MLP (Gemma 4).
struct ExpertWeights {
  std::vector<float> router;               // [experts, hidden]
  std::vector<float> router_norm;          // [hidden], reference::RouterNorm
  std::vector<float> expert_scale;         // [experts]
  std::vector<float> mlp_post_norm;        // [hidden], of the MLP beside them
  std::vector<float> norm;                 // [hidden], of the experts' input
  std::vector<float> post_norm;            // [hidden]
  std::vector<cpu::PackedLinear> gate_up;  // each [2 * expert_ff, hidden]
  std::vector<cpu::PackedLinear> down;     // each [hidden, expert_ff]
};

// Norm weights are those of the GGUF: y = rms(x) * w.
struct LayerWeights {
  std::vector<float> attn_norm;  // [hidden]
  cpu::PackedLinear q;           // [heads * head_dim, hidden]
  // Only where the layer has keys and values of its own; v only if they differ.
  std::optional<cpu::PackedLinear> k;  // [kv_heads * head_dim, hidden]
  std::optional<cpu::PackedLinear> v;  // [kv_heads * head_dim, hidden]
  std::vector<float> q_norm;           // [head_dim]
  std::vector<float> k_norm;           // [head_dim], or empty
  cpu::PackedLinear o;                 // [hidden, heads * head_dim]
  std::vector<float> post_attn_norm;   // [hidden]
  std::vector<float> ffn_norm;         // [hidden]
  cpu::PackedLinear gate;              // [ff, hidden]
  cpu::PackedLinear up;                // [ff, hidden]
  cpu::PackedLinear down;              // [hidden, ff]
  std::vector<float> post_ffw_norm;    // [hidden]
  std::optional<PerLayerInputWeights> input;
  std::unique_ptr<ExpertWeights> experts;
  // Multiplies the residual stream at the layer's end.
  float output_scale = 1;
};

// All layers' own inputs (Gemma 4).
struct PerLayerTable {
  // [vocabulary, layers * width]: stays in the file, rows are read as needed.
  quant::GgmlType type;
  absl::Span<const uint8_t> rows;
  cpu::PackedLinear projection;  // [layers * width, hidden]
  std::vector<float> norm;       // [width]
};

// Immutable, so safe to share.
struct GemmaWeights {
  model::GemmaConfig config;
  cpu::PackedLinear embedding;                // [vocabulary, hidden]
  std::optional<cpu::PackedLinear> own_head;  // the same, if it is not tied
  std::vector<LayerWeights> layers;
  std::vector<float> output_norm;  // [hidden]
  std::optional<PerLayerTable> per_layer;
  // What the file holds: the number of linears but the head by type, the
  // embedding's type and the head's.
  std::map<quant::GgmlType, int> linear_types;
  quant::GgmlType embedding_type;
  quant::GgmlType head_type;

  const cpu::PackedLinear& head() const {
    return own_head ? *own_head : embedding;
  }

  // Bytes of the packed matrices.
  int64_t bytes() const;
  // The same of those that one token's forward pass reads, without the head:
  // of the experts only as many as it uses.
  int64_t body_bytes() const;
  int64_t body_elements() const;
};

// Copies everything but a per-layer table out of `file`, which must outlive the
// weights if there is one.
// Errors of model::ConfigFromGguf; Unimplemented (UNSUPPORTED_TENSOR_TYPE;
// metadata tensor, found, expected): a linear or embedding that is not Q4_0,
// Q2_0, Q8_0 or BF16, or a norm that is not F32; DataLoss (CORRUPT_FILE): a
// norm weight or scale that is not finite.
// head_storage: the logits are the same; a split one can be searched for the
// largest of them faster (logit_search.h), while all take longer.
absl::StatusOr<GemmaWeights> LoadGemmaWeights(
    const model::GgufFile& file, kernels::ThreadPool& pool,
    cpu::PackedLinear::Storage head_storage =
        cpu::PackedLinear::Storage::kWhole);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_GEMMA_WEIGHTS_H_
