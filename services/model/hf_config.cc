#include <cmath>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/gemma_config.h"

namespace onegrid::model {
namespace {

using Json = nlohmann::ordered_json;

// A GGUF file holds its constants in f32; 1e-6 there is 9.99999997e-07. The
// shortest decimal that rounds to the same f32 is what the model's makers
// wrote.
double ShortestDecimal(double value) {
  for (int digits = 1; digits < 9; ++digits) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.*g", digits, value);
    const double shorter = std::strtod(text, nullptr);
    if (static_cast<float>(shorter) == static_cast<float>(value)) {
      return shorter;
    }
  }
  return value;
}

Json RopeParameters(const GemmaConfig& c) {
  Json full = {{"rope_type", "default"},
               {"rope_theta", ShortestDecimal(c.rope_theta_global)}};
  if (c.rope_scaling_factor != 1.0) {
    full["rope_type"] = "linear";
    full["factor"] = ShortestDecimal(c.rope_scaling_factor);
  }
  const Json local = {{"rope_type", "default"},
                      {"rope_theta", ShortestDecimal(c.rope_theta_local)}};
  return {{"full_attention", full}, {"sliding_attention", local}};
}

}  // namespace

absl::StatusOr<std::string> HfConfigJson(
    const GemmaConfig& config, const std::string& dtype,
    const std::string& quantization_config_json) {
  std::vector<std::string> layer_types;
  for (int64_t i = 0; i < config.layers; ++i) {
    layer_types.push_back(config.IsGlobalLayer(i) ? "full_attention"
                                                  : "sliding_attention");
  }
  Json json = {
      {"architectures", {"Gemma3ForCausalLM"}},
      {"model_type", "gemma3_text"},
      {"vocab_size", config.vocab_size},
      {"hidden_size", config.hidden},
      {"intermediate_size", config.ff},
      {"num_hidden_layers", config.layers},
      {"num_attention_heads", config.heads},
      {"num_key_value_heads", config.kv_heads},
      {"head_dim", config.head_dim},
      {"hidden_activation", "gelu_pytorch_tanh"},
      {"max_position_embeddings", config.context_length},
      {"rms_norm_eps", ShortestDecimal(config.rms_eps)},
      {"query_pre_attn_scalar",
       std::llround(1.0 / (config.attention_scale * config.attention_scale))},
      {"sliding_window", config.sliding_window},
      {"layer_types", layer_types},
      {"rope_parameters", RopeParameters(config)},
      {"attention_bias", false},
      {"attention_dropout", 0.0},
      {"attn_logit_softcapping", nullptr},
      {"final_logit_softcapping", nullptr},
      {"use_bidirectional_attention", false},
      {"use_cache", true},
      {"tie_word_embeddings", true},
      {"initializer_range", 0.02},
      {"bos_token_id", config.bos_token_id},
      {"eos_token_id", config.eos_token_id},
      {"pad_token_id", config.pad_token_id},
      {"dtype", dtype},
  };
  if (!quantization_config_json.empty()) {
    Json quantization =
        Json::parse(quantization_config_json, nullptr, /*allow_exceptions=*/
                    false);
    if (!quantization.is_object()) {
      return common::MakeError(absl::StatusCode::kInvalidArgument,
                               "INVALID_QUANTIZATION_CONFIG",
                               "the quantization configuration is not a JSON "
                               "object");
    }
    json["quantization_config"] = std::move(quantization);
  }
  return json.dump(2) + "\n";
}

}  // namespace onegrid::model
