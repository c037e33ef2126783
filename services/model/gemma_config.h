#ifndef SERVICES_MODEL_GEMMA_CONFIG_H_
#define SERVICES_MODEL_GEMMA_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "services/model/gguf_reader.h"

namespace onegrid::model {

// The shape and constants of one Gemma 3 text model (270M, 1B, 4B, 12B, 27B).
struct GemmaConfig {
  int64_t vocab_size = 0;
  int64_t hidden = 0;  // width of the residual stream
  int64_t ff = 0;      // width of the MLP
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  int64_t head_dim = 0;  // heads * head_dim need not equal hidden
  // A key is visible in a sliding layer iff q_pos - k_pos < sliding_window.
  int64_t sliding_window = 0;
  // Layer i attends globally iff (i + 1) % sliding_window_pattern == 0.
  int64_t sliding_window_pattern = 6;
  int64_t context_length = 0;  // tokens
  double rms_eps = 1e-6;
  double rope_theta_global = 1e6;
  double rope_theta_local = 1e4;
  // Positions are divided by this in global layers only; 1 = no scaling.
  double rope_scaling_factor = 1.0;
  // Multiplies q.k: 1/sqrt(head_dim), in the 27B 1/sqrt(hidden / heads).
  double attention_scale = 0;
  int32_t bos_token_id = 2;
  int32_t eos_token_id = 1;
  int32_t pad_token_id = 0;

  bool IsGlobalLayer(int64_t layer) const {
    return (layer + 1) % sliding_window_pattern == 0;
  }
};

// Reads the configuration of a GGUF file of architecture "gemma3".
//
// Unimplemented (UNSUPPORTED_ARCHITECTURE; metadata found, supported): another
// architecture, or a Gemma 3 variant that is not this text model. DataLoss or
// the status of GgufFile::Get* (CORRUPT_FILE): a key is missing or of the wrong
// type, values contradict each other, or a tensor that the configuration asks
// for is missing or has another shape. Each names the file and the key or
// tensor.
absl::StatusOr<GemmaConfig> ConfigFromGguf(const GgufFile& file);

// The text of a Hugging Face config.json (Gemma3ForCausalLM) that transformers
// reads as the same model. dtype: "float32", "bfloat16".
// quantization_config_json: a JSON object put under "quantization_config", or
// empty for none. InvalidArgument: that text is not a JSON object.
absl::StatusOr<std::string> HfConfigJson(
    const GemmaConfig& config, const std::string& dtype,
    const std::string& quantization_config_json);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_GEMMA_CONFIG_H_
