#ifndef SERVICES_MODEL_TENSOR_NAMES_H_
#define SERVICES_MODEL_TENSOR_NAMES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "services/model/gemma_config.h"

namespace onegrid::model {

// The token embedding, which is also the output head if that is tied.
// GGUF dims {hidden, vocab}, Hugging Face [vocab, hidden].
inline constexpr char kGgufEmbedding[] = "token_embd.weight";
inline constexpr char kHfEmbedding[] = "model.embed_tokens.weight";
// A head of its own. GGUF dims {hidden, vocab}, Hugging Face [vocab, hidden].
inline constexpr char kGgufHead[] = "output.weight";
inline constexpr char kHfHead[] = "lm_head";
// Gemma 4's table of each layer's own input, [vocab, layers * width].
inline constexpr char kGgufPerLayerEmbedding[] = "per_layer_token_embd.weight";
inline constexpr char kHfPerLayerEmbedding[] =
    "model.embed_tokens_per_layer.weight";
inline constexpr char kGgufPerLayerProjection[] = "per_layer_model_proj.weight";
inline constexpr char kGgufRopeFactors[] = "rope_freqs.weight";

// A table that is looked up by token.
struct TableSpec {
  std::string gguf_name;
  std::string hf_name;  // with ".weight"
  int64_t rows;
  int64_t cols;
};

// One linear layer, y = W x, W [out, in] (GGUF dims {in, out}), or the same
// layer of all experts, one below the other: out is that of all together, GGUF
// dims are {in, out / experts, experts}, Hugging Face's [experts, out /
// experts, in].
struct LinearSpec {
  std::string gguf_name;  // "blk.0.attn_q.weight"
  std::string hf_name;    // "model.layers.0.self_attn.q_proj", no ".weight"
  std::string kind;       // "q_proj", ..., "down_proj"
  int layer;              // -1: of no layer
  int64_t out;
  int64_t in;
  int64_t experts = 1;

  // Of the tensor in a float checkpoint.
  std::string HfWeightName() const;
  std::vector<int64_t> HfShape() const;
  std::vector<int64_t> GgufDims() const;
};

// A tensor that is kept in f32: a norm's weight or, in Gemma 4, a scale or the
// router. Hugging Face computes Gemma 3's norms as x * (1 + w), llama.cpp as x
// * w, so GGUF stores w + gguf_offset. The trainer and the engine use the GGUF
// values.
struct NormSpec {
  std::string gguf_name;  // "blk.0.attn_norm.weight", "output_norm.weight"
  // "model.layers.0.input_layernorm.weight"; empty: follows from the
  // configuration (see RopeFactors).
  std::string hf_name;
  int64_t size;       // of a row
  float gguf_offset;  // 1 in Gemma 3, else 0
  int64_t rows = 0;   // of a matrix [rows, size]; 0: a vector

  std::vector<int64_t> HfShape() const;
  std::vector<int64_t> GgufDims() const;
};

// The token embedding and, where there is one, the per-layer table.
std::vector<TableSpec> GemmaTables(const GemmaConfig& config);

// The linears by layer, in each in the order q, k, v, o, gate, up, down, of
// which k and v are only where a layer has its own; then the gate and the
// projection of the layer's own input; then the experts' gate and up, down.
// After all layers the projection that gives those inputs, and the head, if it
// is not tied.
std::vector<LinearSpec> GemmaLinears(const GemmaConfig& config);

// The norms by layer, then those of no layer, the final one last.
std::vector<NormSpec> GemmaNorms(const GemmaConfig& config);

// The last parts of all linears' GGUF names, in any model: "attn_q.weight".
std::vector<std::string> LinearSuffixes();

// The values of kGgufRopeFactors: what the frequency of each pair of a global
// layer's head is divided by.
std::vector<float> RopeFactors(const GemmaConfig& config);

// Whether the tensor holds keys or values that a layer would project itself,
// were they not another's: older files have them, nothing reads them.
bool IsUnusedKv(const GemmaConfig& config, const std::string& name);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_TENSOR_NAMES_H_
