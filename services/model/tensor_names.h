#ifndef SERVICES_MODEL_TENSOR_NAMES_H_
#define SERVICES_MODEL_TENSOR_NAMES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "services/model/gemma_config.h"

namespace onegrid::model {

// The token embedding, which is also the output head (tied).
// GGUF dims {hidden, vocab}, Hugging Face [vocab, hidden].
inline constexpr char kGgufEmbedding[] = "token_embd.weight";
inline constexpr char kHfEmbedding[] = "model.embed_tokens.weight";

// One linear layer, y = W x, W [out, in] (GGUF dims {in, out}).
struct LinearSpec {
  std::string gguf_name;  // "blk.0.attn_q.weight"
  std::string hf_name;    // "model.layers.0.self_attn.q_proj", no ".weight"
  std::string kind;       // "q_proj", ..., "down_proj"
  int layer;
  int64_t out;
  int64_t in;
};

// One RMSNorm weight vector. Hugging Face computes x * (1 + w), llama.cpp
// x * w, so GGUF stores w + 1: going from GGUF to Hugging Face subtract 1, the
// other way add 1 (kGgufNormOffset). The trainer and the engine use the GGUF
// values.
struct NormSpec {
  std::string gguf_name;  // "blk.0.attn_norm.weight", "output_norm.weight"
  std::string hf_name;    // "model.layers.0.input_layernorm.weight"
  int64_t size;
};
inline constexpr float kGgufNormOffset = 1.0f;

// The linears by layer, in each in the order q, k, v, o, gate, up, down.
std::vector<LinearSpec> GemmaLinears(const GemmaConfig& config);

// The norms by layer, then the final norm.
std::vector<NormSpec> GemmaNorms(const GemmaConfig& config);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_TENSOR_NAMES_H_
