#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
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

bool GlobalLayersTakeKeys(const GemmaConfig& config) {
  return std::any_of(
      config.layers.begin(), config.layers.end(),
      [](const GemmaLayer& layer) { return layer.value_is_key; });
}

// A layer that attends to a window, else any.
const GemmaLayer& SlidingLayer(const GemmaConfig& config) {
  for (const GemmaLayer& layer : config.layers) {
    if (!layer.global) return layer;
  }
  return config.layers[0];
}

Json RopeParameters(const GemmaConfig& c) {
  Json full = {{"rope_type", "default"},
               {"rope_theta", ShortestDecimal(c.rope_theta_global)}};
  if (c.rope_scaling_factor != 1.0) {
    full["rope_type"] = "linear";
    full["factor"] = ShortestDecimal(c.rope_scaling_factor);
  }
  if (c.rope_global_pairs > 0) {
    full["rope_type"] = "proportional";
    full["partial_rotary_factor"] =
        2.0 * static_cast<double>(c.rope_global_pairs) /
        static_cast<double>(c.layers.back().head_dim);
  }
  const Json local = {{"rope_type", "default"},
                      {"rope_theta", ShortestDecimal(c.rope_theta_local)}};
  return {{"full_attention", full}, {"sliding_attention", local}};
}

// What every Gemma's configuration has.
Json CommonConfig(const GemmaConfig& config, const std::string& dtype) {
  std::vector<std::string> layer_types;
  for (const GemmaLayer& layer : config.layers) {
    layer_types.push_back(layer.global ? "full_attention"
                                       : "sliding_attention");
  }
  const GemmaLayer& layer = SlidingLayer(config);
  return {{"vocab_size", config.vocab_size},
          {"hidden_size", config.hidden},
          {"intermediate_size", config.layers[0].ff},
          {"num_hidden_layers", config.layer_count()},
          {"num_attention_heads", config.heads},
          {"num_key_value_heads", layer.kv_heads},
          {"head_dim", layer.head_dim},
          {"hidden_activation", "gelu_pytorch_tanh"},
          {"max_position_embeddings", config.context_length},
          {"rms_norm_eps", ShortestDecimal(config.rms_eps)},
          {"sliding_window", config.sliding_window},
          {"layer_types", layer_types},
          {"rope_parameters", RopeParameters(config)},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"use_cache", true},
          {"tie_word_embeddings", config.tied_head},
          {"initializer_range", 0.02},
          {"bos_token_id", config.bos_token_id},
          {"eos_token_id", config.eos_token_id},
          {"pad_token_id", config.pad_token_id},
          {"dtype", dtype}};
}

Json Gemma3Config(const GemmaConfig& config) {
  return {
      {"architectures", {"Gemma3ForCausalLM"}},
      {"model_type", "gemma3_text"},
      {"query_pre_attn_scalar",
       std::llround(1.0 / (config.attention_scale * config.attention_scale))},
      {"attn_logit_softcapping", nullptr},
      {"final_logit_softcapping", nullptr},
      {"use_bidirectional_attention", false}};
}

absl::Status NotExpressible(const std::string& what) {
  return common::MakeError(
      absl::StatusCode::kUnimplemented, "UNSUPPORTED_ARCHITECTURE",
      absl::StrCat("config.json of Gemma 4 has no word for ", what));
}

// Values that a Gemma4TextConfig derives from others must come out as they are.
absl::Status CheckExpressible(const GemmaConfig& config) {
  if (!config.layers.back().global) {
    return NotExpressible("a last layer that is not global");
  }
  const int64_t ff = config.layers[0].ff;
  const bool wide = config.layers.back().ff != ff;
  for (int64_t i = 0; i < config.layer_count(); ++i) {
    const GemmaLayer& layer = config.layers[i];
    if (layer.ff != (wide && !config.HasKv(i) ? 2 * ff : ff)) {
      return NotExpressible(absl::StrCat("the MLP of layer ", i));
    }
    if (layer.global && config.HasKv(i) &&
        layer.value_is_key != GlobalLayersTakeKeys(config)) {
      return NotExpressible("values that are keys in some global layers only");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> Gemma4Config(const GemmaConfig& config) {
  RETURN_IF_ERROR(CheckExpressible(config));
  const GemmaLayer& sliding = SlidingLayer(config);
  Json overrides = Json::object();
  int64_t shared = 0;
  for (int64_t i = 0; i < config.layer_count(); ++i) {
    const GemmaLayer& layer = config.layers[i];
    shared += config.HasKv(i) ? 0 : 1;
    Json values = Json::object();
    if (layer.head_dim != sliding.head_dim) values["head_dim"] = layer.head_dim;
    if (layer.kv_heads != sliding.kv_heads) {
      values["num_key_value_heads"] = layer.kv_heads;
    }
    if (!values.empty()) overrides[absl::StrCat(i)] = std::move(values);
  }
  Json json = {
      {"architectures", {"Gemma4ForCausalLM"}},
      {"model_type", "gemma4_text"},
      {"per_layer_config", overrides},
      {"attention_k_eq_v", GlobalLayersTakeKeys(config)},
      {"num_kv_shared_layers", shared},
      {"use_double_wide_mlp", config.layers.back().ff != config.layers[0].ff},
      {"hidden_size_per_layer_input", config.per_layer_width},
      {"vocab_size_per_layer_input", config.vocab_size},
      {"enable_moe_block", config.experts > 0},
      {"use_bidirectional_attention", nullptr},
      {"final_logit_softcapping", nullptr}};
  if (config.logit_softcap > 0) {
    json["final_logit_softcapping"] = ShortestDecimal(config.logit_softcap);
  }
  if (config.experts > 0) {
    json["num_experts"] = config.experts;
    json["top_k_experts"] = config.experts_used;
    json["moe_intermediate_size"] = config.expert_ff;
  }
  return json;
}

}  // namespace

absl::StatusOr<std::string> HfConfigJson(
    const GemmaConfig& config, const std::string& dtype,
    const std::string& quantization_config_json) {
  Json json = Gemma3Config(config);
  if (config.family == GemmaFamily::kGemma4) {
    ASSIGN_OR_RETURN(json, Gemma4Config(config));
  }
  json.update(CommonConfig(config, dtype));
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
