// The weights of one Gemma 3 model, packed for the kernels.
#ifndef SERVICES_INFERENCE_GEMMA_WEIGHTS_H_
#define SERVICES_INFERENCE_GEMMA_WEIGHTS_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/quant/ggml_types.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"

namespace onegrid::inference {

// Norm weights are those of the GGUF: y = rms(x) * w.
struct LayerWeights {
  std::vector<float> attn_norm;       // [hidden]
  cpu::PackedLinear q;                // [heads * head_dim, hidden]
  cpu::PackedLinear k;                // [kv_heads * head_dim, hidden]
  cpu::PackedLinear v;                // [kv_heads * head_dim, hidden]
  std::vector<float> q_norm;          // [head_dim]
  std::vector<float> k_norm;          // [head_dim]
  cpu::PackedLinear o;                // [hidden, heads * head_dim]
  std::vector<float> post_attn_norm;  // [hidden]
  std::vector<float> ffn_norm;        // [hidden]
  cpu::PackedLinear gate;             // [ff, hidden]
  cpu::PackedLinear up;               // [ff, hidden]
  cpu::PackedLinear down;             // [hidden, ff]
  std::vector<float> post_ffw_norm;   // [hidden]
};

// Immutable, so safe to share.
struct GemmaWeights {
  model::GemmaConfig config;
  cpu::PackedLinear embedding;  // [vocabulary, hidden], also the head
  std::vector<LayerWeights> layers;
  std::vector<float> output_norm;  // [hidden]
  // What the file holds: the number of linears by type, the embedding's type.
  std::map<quant::GgmlType, int> linear_types;
  quant::GgmlType embedding_type;

  // Bytes of the packed matrices.
  int64_t bytes() const;
};

// Copies everything out of `file`, which is not needed afterwards.
// Errors of model::ConfigFromGguf; Unimplemented (UNSUPPORTED_TENSOR_TYPE;
// metadata tensor, found, expected): a linear or embedding that is not Q4_0,
// Q2_0 or Q8_0, a norm that is not F32, or a separate output head; DataLoss
// (CORRUPT_FILE): a norm weight or scale that is not finite.
absl::StatusOr<GemmaWeights> LoadGemmaWeights(const model::GgufFile& file,
                                              kernels::ThreadPool& pool);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_GEMMA_WEIGHTS_H_
