#include "services/model/hf_model_config.h"

#include <cmath>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/json_depth.h"
#include "services/model/gemma_limits.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {
namespace {

using Json = nlohmann::json;

constexpr char kSupported[] = "gemma3, gemma4";

class ConfigReader {
 public:
  ConfigReader(const Json& json, const std::string& path)
      : json_(json), path_(path) {}

  absl::StatusOr<GemmaConfig> Read();

 private:
  // What a layer has unless per_layer_config says otherwise.
  struct Shape {
    int64_t layers = 0;
    int64_t head_dim = 0;
    int64_t kv_heads = 0;
    int64_t ff = 0;
  };
  absl::Status CheckVariant(GemmaConfig& config);
  absl::Status ReadShape(Shape& shape, GemmaConfig& config);
  absl::Status ReadGemma3(const Shape& shape, GemmaConfig& config);
  absl::Status ReadGemma4(const Shape& shape, GemmaConfig& config);
  absl::Status ReadGlobalHeads(GemmaConfig& config);
  absl::Status ReadLayerOverrides(GemmaConfig& config);
  absl::Status ReadKvSharing(GemmaConfig& config);
  absl::Status ReadExperts(GemmaConfig& config);
  absl::Status CheckLayers(const GemmaConfig& config);
  absl::Status ReadRope(GemmaConfig& config);
  absl::Status ReadRopeParameters(const Json& rope, GemmaConfig& config);
  absl::Status ReadScaling(const Json& scaling, GemmaConfig& config);
  absl::Status ReadProportional(const Json& scaling, GemmaConfig& config);
  // Which layers attend globally.
  absl::Status ReadLayerTypes(const Shape& shape, GemmaConfig& config);
  absl::Status ReadTokenIds(GemmaConfig& config);

  // True if the key is there and not null.
  static bool Has(const Json& json, const char* key) {
    return json.contains(key) && !json[key].is_null();
  }
  absl::Status Int(const Json& json, const char* key, int64_t max,
                   int64_t& value);
  absl::Status Int(const char* key, int64_t max, int64_t& value) {
    return Int(json_, key, max, value);
  }
  bool IsTrue(const char* key) const {
    return Has(json_, key) && json_[key] == true;
  }
  absl::Status Real(const Json& json, const char* key, double& value);
  absl::Status Unsupported(const std::string& what) {
    return common::MakeError(
        absl::StatusCode::kUnimplemented, "UNSUPPORTED_ARCHITECTURE",
        absl::StrCat(path_, ": ", what),
        {{"path", path_}, {"found", what}, {"supported", kSupported}});
  }

  const Json& json_;
  const std::string& path_;
};

absl::Status ConfigReader::Int(const Json& json, const char* key, int64_t max,
                               int64_t& value) {
  if (!json.contains(key) || !json[key].is_number_integer() ||
      json[key].get<int64_t>() < 1 || json[key].get<int64_t>() > max) {
    return CorruptFile(
        path_, absl::StrCat(key, ": expected a number from 1 to ", max));
  }
  value = json[key].get<int64_t>();
  return absl::OkStatus();
}

absl::Status ConfigReader::Real(const Json& json, const char* key,
                                double& value) {
  if (!json.contains(key) || !json[key].is_number() ||
      !std::isfinite(json[key].get<double>()) || json[key].get<double>() <= 0) {
    return CorruptFile(path_,
                       absl::StrCat(key, ": expected a positive number"));
  }
  value = json[key].get<double>();
  return absl::OkStatus();
}

absl::Status ConfigReader::CheckVariant(GemmaConfig& config) {
  const Json* names =
      Has(json_, "architectures") ? &json_["architectures"] : nullptr;
  const bool one = names != nullptr && names->is_array() && names->size() == 1;
  if (one && (*names)[0] == "Gemma3ForCausalLM") {
    config.family = GemmaFamily::kGemma3;
  } else if (one && (*names)[0] == "Gemma4ForCausalLM") {
    config.family = GemmaFamily::kGemma4;
  } else {
    return Unsupported(
        absl::StrCat("unsupported architecture: found ",
                     names == nullptr ? "none" : names->dump(-1, ' ', true),
                     ", supported: [\"Gemma3ForCausalLM\"], "
                     "[\"Gemma4ForCausalLM\"]"));
  }
  for (const char* key : {"attn_logit_softcapping", "quantization_config"}) {
    if (Has(json_, key)) {
      return Unsupported(absl::StrCat(key, " is set, expected none"));
    }
  }
  if (Has(json_, "attention_bias") && json_["attention_bias"] != false) {
    return Unsupported("attention_bias: expected false");
  }
  config.tied_head =
      !Has(json_, "tie_word_embeddings") || IsTrue("tie_word_embeddings");
  // "vision" lets image tokens see each other; text is causal.
  if (Has(json_, "use_bidirectional_attention") &&
      json_["use_bidirectional_attention"] != false &&
      json_["use_bidirectional_attention"] != "vision") {
    return Unsupported("use_bidirectional_attention: expected false");
  }
  if (Has(json_, "hidden_activation") &&
      json_["hidden_activation"] != "gelu_pytorch_tanh") {
    return Unsupported("hidden_activation: expected gelu_pytorch_tanh");
  }
  return absl::OkStatus();
}

absl::Status ConfigReader::ReadScaling(const Json& scaling,
                                       GemmaConfig& config) {
  const char* key = scaling.contains("rope_type") ? "rope_type" : "type";
  if (!scaling.is_object() || !Has(scaling, key)) {
    return CorruptFile(path_, "rope scaling without a type");
  }
  if (scaling[key] == "default") return absl::OkStatus();
  if (scaling[key] == "proportional" && config.family == GemmaFamily::kGemma4) {
    return ReadProportional(scaling, config);
  }
  if (scaling[key] != "linear") {
    return Unsupported(absl::StrCat("rope type ",
                                    scaling[key].dump(-1, ' ', true),
                                    ", supported: default and linear"));
  }
  return Real(scaling, "factor", config.rope_scaling_factor);
}

absl::Status ConfigReader::ReadProportional(const Json& scaling,
                                            GemmaConfig& config) {
  double part = 1, factor = 1;
  if (Has(scaling, "partial_rotary_factor")) {
    RETURN_IF_ERROR(Real(scaling, "partial_rotary_factor", part));
  }
  if (Has(scaling, "factor")) RETURN_IF_ERROR(Real(scaling, "factor", factor));
  if (part > 1 || factor != 1) {
    return Unsupported(absl::StrCat("partial_rotary_factor ", part,
                                    " and factor ", factor,
                                    ": expected at most 1, and 1"));
  }
  for (const GemmaLayer& layer : config.layers) {
    if (!layer.global) continue;
    // As transformers rounds it.
    config.rope_global_pairs = static_cast<int64_t>(part * layer.head_dim / 2);
  }
  if (config.rope_global_pairs == 0) {
    return Unsupported("partial_rotary_factor: no pair of a head rotates");
  }
  return absl::OkStatus();
}

absl::Status ConfigReader::ReadRopeParameters(const Json& rope,
                                              GemmaConfig& config) {
  for (const char* key : {"full_attention", "sliding_attention"}) {
    if (!rope.is_object() || !Has(rope, key) || !rope[key].is_object()) {
      return CorruptFile(path_,
                         absl::StrCat("rope_parameters: ", key, " is missing"));
    }
  }
  const Json& sliding = rope["sliding_attention"];
  RETURN_IF_ERROR(Real(sliding, "rope_theta", config.rope_theta_local));
  if (Has(sliding, "rope_type") && sliding["rope_type"] != "default") {
    return Unsupported("rope scaling in sliding layers");
  }
  const Json& full = rope["full_attention"];
  RETURN_IF_ERROR(Real(full, "rope_theta", config.rope_theta_global));
  return Has(full, "rope_type") ? ReadScaling(full, config) : absl::OkStatus();
}

absl::Status ConfigReader::ReadRope(GemmaConfig& config) {
  if (Has(json_, "rope_parameters")) {
    return ReadRopeParameters(json_["rope_parameters"], config);
  }
  if (Has(json_, "rope_theta")) {
    RETURN_IF_ERROR(Real(json_, "rope_theta", config.rope_theta_global));
  }
  if (Has(json_, "rope_local_base_freq")) {
    RETURN_IF_ERROR(
        Real(json_, "rope_local_base_freq", config.rope_theta_local));
  }
  if (!Has(json_, "rope_scaling")) return absl::OkStatus();
  return ReadScaling(json_["rope_scaling"], config);
}

absl::Status ConfigReader::ReadLayerTypes(const Shape& shape,
                                          GemmaConfig& config) {
  const GemmaLayer layer = {
      .head_dim = shape.head_dim, .kv_heads = shape.kv_heads, .ff = shape.ff};
  int64_t pattern = kDefaultPattern;
  if (!Has(json_, "layer_types")) {
    for (const char* key :
         {"sliding_window_pattern", "_sliding_window_pattern"}) {
      if (!Has(json_, key)) continue;
      RETURN_IF_ERROR(Int(key, kLayersMax, pattern));
    }
    config.layers = UniformLayers(shape.layers, pattern, layer);
    return absl::OkStatus();
  }
  const Json& types = json_["layer_types"];
  if (!types.is_array() || static_cast<int64_t>(types.size()) != shape.layers) {
    return CorruptFile(
        path_, absl::StrCat("layer_types: expected ", shape.layers, " names"));
  }
  config.layers = UniformLayers(shape.layers, pattern, layer);
  for (int64_t i = 0; i < shape.layers; ++i) {
    config.layers[i].global = types[i] == "full_attention";
    if (!config.layers[i].global && types[i] != "sliding_attention") {
      return Unsupported(absl::StrCat("layer_types: layer ", i, " is ",
                                      types[i].dump(-1, ' ', true)));
    }
  }
  return absl::OkStatus();
}

absl::Status ConfigReader::ReadTokenIds(GemmaConfig& config) {
  const std::pair<const char*, int32_t*> ids[] = {
      {"bos_token_id", &config.bos_token_id},
      {"eos_token_id", &config.eos_token_id},
      {"pad_token_id", &config.pad_token_id}};
  for (const auto& [key, id] : ids) {
    if (!Has(json_, key)) continue;
    // eos may be a list, the end of sequence first.
    const Json& value = json_[key].is_array() && !json_[key].empty()
                            ? json_[key][0]
                            : json_[key];
    if (!value.is_number_integer() || value.get<int64_t>() < 0 ||
        value.get<int64_t>() >= config.vocab_size) {
      return CorruptFile(path_, absl::StrCat(key, ": expected a token below ",
                                             config.vocab_size));
    }
    *id = value.get<int32_t>();
  }
  return absl::OkStatus();
}

absl::Status ConfigReader::ReadShape(Shape& shape, GemmaConfig& config) {
  const struct {
    const char* key;
    int64_t max;
    int64_t* value;
  } numbers[] = {
      {"vocab_size", kVocabularyMax, &config.vocab_size},
      {"hidden_size", kWidthMax, &config.hidden},
      {"intermediate_size", kWidthMax, &shape.ff},
      {"num_hidden_layers", kLayersMax, &shape.layers},
      {"num_attention_heads", kWidthMax, &config.heads},
      {"num_key_value_heads", kWidthMax, &shape.kv_heads},
      {"head_dim", kWidthMax, &shape.head_dim},
      {"sliding_window", kPositionsMax, &config.sliding_window},
      {"max_position_embeddings", kPositionsMax, &config.context_length}};
  for (const auto& number : numbers) {
    RETURN_IF_ERROR(Int(number.key, number.max, *number.value));
  }
  return Real(json_, "rms_norm_eps", config.rms_eps);
}

absl::Status ConfigReader::CheckLayers(const GemmaConfig& config) {
  for (const GemmaLayer& layer : config.layers) {
    if (config.heads % layer.kv_heads != 0 || layer.head_dim % 2 != 0 ||
        config.heads * layer.head_dim > kWidthMax) {
      return CorruptFile(path_,
                         "num_attention_heads, num_key_value_heads and "
                         "head_dim do not fit each other");
    }
    if (config.layers[layer.kv_source].kv_heads != layer.kv_heads ||
        config.layers[layer.kv_source].head_dim != layer.head_dim) {
      return CorruptFile(path_,
                         "per_layer_config: a layer differs from the one whose "
                         "keys and values it shares");
    }
  }
  return absl::OkStatus();
}

absl::Status ConfigReader::ReadGemma3(const Shape& shape, GemmaConfig& config) {
  if (Has(json_, "final_logit_softcapping")) {
    return Unsupported("final_logit_softcapping is set, expected none");
  }
  RETURN_IF_ERROR(ReadLayerTypes(shape, config));
  // A GGUF file has one number for which layers are global.
  int64_t pattern = 1;
  while (pattern <= shape.layers && !config.layers[pattern - 1].global) {
    ++pattern;
  }
  for (int64_t i = 0; i < shape.layers; ++i) {
    if (config.layers[i].global != ((i + 1) % pattern == 0)) {
      return Unsupported(absl::StrCat("layer_types: layer ", i,
                                      " is not in the pattern of every ",
                                      pattern, "th layer global"));
    }
  }
  double query_scale = 0;
  RETURN_IF_ERROR(Real(json_, "query_pre_attn_scalar", query_scale));
  if (query_scale != Gemma3QueryScale(config)) {
    return Unsupported(absl::StrCat("query_pre_attn_scalar: found ",
                                    query_scale, ", a GGUF file stands for ",
                                    Gemma3QueryScale(config)));
  }
  config.attention_scale = Gemma3AttentionScale(config);
  return absl::OkStatus();
}

// Newer files say it layer by layer.
absl::Status ConfigReader::ReadGlobalHeads(GemmaConfig& config) {
  int64_t head_dim = 0, kv_heads = 0;
  if (Has(json_, "global_head_dim")) {
    RETURN_IF_ERROR(Int("global_head_dim", kWidthMax, head_dim));
  }
  if (Has(json_, "num_global_key_value_heads") && IsTrue("attention_k_eq_v")) {
    RETURN_IF_ERROR(Int("num_global_key_value_heads", kWidthMax, kv_heads));
  }
  for (GemmaLayer& layer : config.layers) {
    if (!layer.global) continue;
    if (head_dim > 0) layer.head_dim = head_dim;
    if (kv_heads > 0) layer.kv_heads = kv_heads;
  }
  return absl::OkStatus();
}

absl::Status ConfigReader::ReadLayerOverrides(GemmaConfig& config) {
  if (!Has(json_, "per_layer_config")) {
    return ReadGlobalHeads(config);
  }
  const Json& overrides = json_["per_layer_config"];
  if (!overrides.is_object()) {
    return CorruptFile(path_, "per_layer_config: expected an object");
  }
  for (const auto& [name, values] : overrides.items()) {
    int64_t i = -1;
    if (!absl::SimpleAtoi(name, &i) || i < 0 || i >= config.layer_count() ||
        !values.is_object()) {
      return CorruptFile(
          path_, absl::StrCat("per_layer_config: expected an object for each "
                              "layer number, found ",
                              Json(name).dump(-1, ' ', true)));
    }
    for (const auto& [key, value] : values.items()) {
      if (key == "head_dim") {
        RETURN_IF_ERROR(
            Int(values, "head_dim", kWidthMax, config.layers[i].head_dim));
      } else if (key == "num_key_value_heads") {
        RETURN_IF_ERROR(Int(values, "num_key_value_heads", kWidthMax,
                            config.layers[i].kv_heads));
      } else {
        return Unsupported(absl::StrCat("per_layer_config: layer ", i, " has ",
                                        Json(key).dump(-1, ' ', true)));
      }
    }
  }
  // A GGUF file has one head size for each kind of layer.
  for (const GemmaLayer& layer : config.layers) {
    for (const GemmaLayer& other : config.layers) {
      if (layer.global == other.global && layer.head_dim != other.head_dim) {
        return Unsupported("per_layer_config: layers of one kind differ");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ConfigReader::ReadKvSharing(GemmaConfig& config) {
  int64_t shared = 0;
  if (Has(json_, "num_kv_shared_layers") &&
      json_["num_kv_shared_layers"] != 0) {
    RETURN_IF_ERROR(
        Int("num_kv_shared_layers", config.layer_count() - 1, shared));
  }
  if (!ShareKv(shared, config.layers)) {
    return CorruptFile(path_, absl::StrCat("num_kv_shared_layers: ", shared,
                                           " leaves no layer of each kind to "
                                           "take keys and values from"));
  }
  for (int64_t i = 0; i < config.layer_count(); ++i) {
    GemmaLayer& layer = config.layers[i];
    layer.value_is_key =
        layer.global && config.HasKv(i) && IsTrue("attention_k_eq_v");
    if (!config.HasKv(i) && IsTrue("use_double_wide_mlp")) layer.ff *= 2;
  }
  return absl::OkStatus();
}

absl::Status ConfigReader::ReadExperts(GemmaConfig& config) {
  if (!IsTrue("enable_moe_block")) return absl::OkStatus();
  RETURN_IF_ERROR(Int("num_experts", kExpertsMax, config.experts));
  RETURN_IF_ERROR(Int("top_k_experts", config.experts, config.experts_used));
  return Int("moe_intermediate_size", kWidthMax, config.expert_ff);
}

absl::Status ConfigReader::ReadGemma4(const Shape& shape, GemmaConfig& config) {
  RETURN_IF_ERROR(ReadLayerTypes(shape, config));
  config.layers.back().global = true;  // whatever the file says
  RETURN_IF_ERROR(ReadLayerOverrides(config));
  RETURN_IF_ERROR(ReadKvSharing(config));
  RETURN_IF_ERROR(ReadExperts(config));
  config.attention_scale = 1;
  if (Has(json_, "final_logit_softcapping")) {
    RETURN_IF_ERROR(
        Real(json_, "final_logit_softcapping", config.logit_softcap));
  }
  if (!Has(json_, "hidden_size_per_layer_input") ||
      json_["hidden_size_per_layer_input"] == 0) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(Int("hidden_size_per_layer_input", kWidthMax / shape.layers,
                      config.per_layer_width));
  int64_t vocab_size = 0;
  RETURN_IF_ERROR(
      Int("vocab_size_per_layer_input", kVocabularyMax, vocab_size));
  if (vocab_size != config.vocab_size) {
    return Unsupported(absl::StrCat("vocab_size_per_layer_input: found ",
                                    vocab_size, ", expected vocab_size, ",
                                    config.vocab_size));
  }
  return absl::OkStatus();
}

absl::StatusOr<GemmaConfig> ConfigReader::Read() {
  GemmaConfig config;
  RETURN_IF_ERROR(CheckVariant(config));
  Shape shape;
  RETURN_IF_ERROR(ReadShape(shape, config));
  RETURN_IF_ERROR(config.family == GemmaFamily::kGemma3
                      ? ReadGemma3(shape, config)
                      : ReadGemma4(shape, config));
  RETURN_IF_ERROR(CheckLayers(config));
  RETURN_IF_ERROR(ReadRope(config));
  RETURN_IF_ERROR(ReadTokenIds(config));
  return config;
}

}  // namespace

absl::StatusOr<GemmaConfig> ConfigFromHfJson(absl::string_view text,
                                             const std::string& path) {
  // Values are written into messages, which the library does by recursion.
  if (common::NestsDeeperThan(text, common::kJsonDepthMax)) {
    return CorruptFile(
        path, absl::StrCat("nested deeper than ", common::kJsonDepthMax));
  }
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return CorruptFile(path, "not a JSON object");
  return ConfigReader(json, path).Read();
}

}  // namespace onegrid::model
