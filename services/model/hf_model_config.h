#ifndef SERVICES_MODEL_HF_MODEL_CONFIG_H_
#define SERVICES_MODEL_HF_MODEL_CONFIG_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_value.h"

namespace onegrid::model {

// Reads a Hugging Face config.json of a Gemma 3 or 4 text model
// (Gemma3ForCausalLM, Gemma4ForCausalLM), in the form of any transformers
// version: layer_types or sliding_window_pattern; rope_parameters or
// rope_theta, rope_local_base_freq and rope_scaling; per_layer_config or
// global_head_dim and num_global_key_value_heads. `path` is for messages.
// DataLoss (CORRUPT_FILE): not a JSON object, or a value that is missing, of
// another type or out of range. Unimplemented (UNSUPPORTED_ARCHITECTURE):
// another model, or a variant (biases) that the trainer and the
// engine do not compute or a GGUF file does not hold.
absl::StatusOr<GemmaConfig> ConfigFromHfJson(absl::string_view json,
                                             const std::string& path);

// The general.architecture and gemma3.* or gemma4.* metadata that
// ConfigFromGguf reads as the same configuration (token ids are the
// tokenizer's).
std::map<std::string, GgufValue> GemmaMetadata(const GemmaConfig& config);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_HF_MODEL_CONFIG_H_
