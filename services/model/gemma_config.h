#ifndef SERVICES_MODEL_GEMMA_CONFIG_H_
#define SERVICES_MODEL_GEMMA_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/model/gguf_reader.h"

namespace onegrid::model {

enum class GemmaFamily { kGemma3, kGemma4 };

// What may differ from layer to layer. In Gemma 3 only `global` does.
struct GemmaLayer {
  // Attends to all positions, not to a window.
  bool global = false;
  int64_t head_dim = 0;
  int64_t kv_heads = 0;  // divides the configuration's heads
  int64_t ff = 0;        // width of the MLP
  // The layer whose keys and values it attends to: its own number, or that of
  // an earlier layer of the same kind; then it has no projections of its own.
  int64_t kv_source = 0;
  // The value is what the key's projection gives, before norm and rotation.
  bool value_is_key = false;

  bool operator==(const GemmaLayer&) const = default;
};

// The shape and constants of one Gemma text model: Gemma 3 (270M, 1B, 4B, 12B,
// 27B) or Gemma 4 (E2B, E4B, 12B, 26B-A4B, 31B).
struct GemmaConfig {
  GemmaFamily family = GemmaFamily::kGemma3;
  int64_t vocab_size = 0;
  int64_t hidden = 0;  // width of the residual stream
  int64_t heads = 0;   // heads * head_dim need not equal hidden
  std::vector<GemmaLayer> layers;
  // A key is visible in a sliding layer iff q_pos - k_pos < sliding_window.
  int64_t sliding_window = 0;
  int64_t context_length = 0;  // tokens
  double rms_eps = 1e-6;
  double rope_theta_global = 1e6;
  double rope_theta_local = 1e4;
  // Positions are divided by this in global layers only; 1 = no scaling.
  double rope_scaling_factor = 1.0;
  // In global layers the first this many of the head_dim / 2 pairs rotate, each
  // as fast as if all did; 0 = all. ("proportional" in transformers.)
  int64_t rope_global_pairs = 0;
  // Multiplies q.k: Gemma 3 1/sqrt(head_dim), in the 27B 1/sqrt(hidden /
  // heads); Gemma 4 1.
  double attention_scale = 0;
  // Logits are cap * tanh(logit / cap); 0 = as they are.
  double logit_softcap = 0;
  // The head is the token embedding.
  bool tied_head = true;
  // Width of each layer's own input, looked up by token and projected from the
  // embedding; 0 = none.
  int64_t per_layer_width = 0;
  // Mixture of experts beside the MLP, in every layer; 0 = none.
  int64_t experts = 0;
  int64_t experts_used = 0;  // of them by each token
  int64_t expert_ff = 0;     // width of one
  int32_t bos_token_id = 2;
  int32_t eos_token_id = 1;
  int32_t pad_token_id = 0;

  int64_t layer_count() const { return static_cast<int64_t>(layers.size()); }
  bool IsGlobalLayer(int64_t layer) const { return layers[layer].global; }
  // Whether the layer has keys and values of its own.
  bool HasKv(int64_t layer) const { return layers[layer].kv_source == layer; }
  // Of the global layers or of the others; of any if there is none of them.
  int64_t head_dim(bool global) const;
  // The widest of all layers.
  int64_t max_head_dim() const;
  int64_t max_kv_width() const;  // kv_heads * head_dim
  int64_t max_ff() const;
};

// Layers of one shape, of which every `pattern`th attends globally.
std::vector<GemmaLayer> UniformLayers(int64_t count, int64_t pattern,
                                      GemmaLayer shape);

// Points the last `shared` layers to the last layer before them that is as
// global as they are. False if there is none.
bool ShareKv(int64_t shared, std::vector<GemmaLayer>& layers);

// Of GGUF metadata, "gemma3" and "gemma4".
std::string ArchitectureName(GemmaFamily family);

// Reads the configuration of a GGUF file of architecture "gemma3" or "gemma4".
//
// Unimplemented (UNSUPPORTED_ARCHITECTURE; metadata found, supported): another
// architecture, or a variant that is not one of these text models. DataLoss or
// the status of GgufFile::Get* (CORRUPT_FILE): a key is missing or of the wrong
// type, values contradict each other, or a tensor that the configuration asks
// for is missing or has another shape. Each names the file and the key or
// tensor.
absl::StatusOr<GemmaConfig> ConfigFromGguf(const GgufFile& file);

// The text of a Hugging Face config.json (Gemma3ForCausalLM or
// Gemma4ForCausalLM) that transformers reads as the same model. dtype:
// "float32", "bfloat16". quantization_config_json: a JSON object put under
// "quantization_config", or empty for none. InvalidArgument: that text is not a
// JSON object.
absl::StatusOr<std::string> HfConfigJson(
    const GemmaConfig& config, const std::string& dtype,
    const std::string& quantization_config_json);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_GEMMA_CONFIG_H_
