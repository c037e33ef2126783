#include "services/model/hf_model_config.h"

#include <cmath>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {
namespace {

using Json = nlohmann::json;

constexpr char kArchitecture[] = "gemma3";
// As in gemma_config.cc: the bounds, and the model whose attention scale
// differs.
constexpr int64_t kWidthMax = 1 << 20;
constexpr int64_t kLayersMax = 1024;
constexpr int64_t kLayers27B = 62;

class ConfigReader {
 public:
  ConfigReader(const Json& json, const std::string& path)
      : json_(json), path_(path) {}

  absl::StatusOr<GemmaConfig> Read();

 private:
  absl::Status CheckVariant();
  absl::Status ReadRope(GemmaConfig& config);
  absl::Status ReadRopeParameters(const Json& rope, GemmaConfig& config);
  absl::Status ReadScaling(const Json& scaling, GemmaConfig& config);
  absl::Status ReadPattern(GemmaConfig& config);
  absl::Status ReadTokenIds(GemmaConfig& config);

  // True if the key is there and not null.
  static bool Has(const Json& json, const char* key) {
    return json.contains(key) && !json[key].is_null();
  }
  absl::Status Int(const char* key, int64_t max, int64_t& value);
  absl::Status Real(const Json& json, const char* key, double& value);
  absl::Status Unsupported(const std::string& what) {
    return common::MakeError(
        absl::StatusCode::kUnimplemented, "UNSUPPORTED_ARCHITECTURE",
        absl::StrCat(path_, ": ", what),
        {{"path", path_}, {"found", what}, {"supported", kArchitecture}});
  }

  const Json& json_;
  const std::string& path_;
};

absl::Status ConfigReader::Int(const char* key, int64_t max, int64_t& value) {
  if (!json_.contains(key) || !json_[key].is_number_integer() ||
      json_[key].get<int64_t>() < 1 || json_[key].get<int64_t>() > max) {
    return CorruptFile(
        path_, absl::StrCat(key, ": expected a number from 1 to ", max));
  }
  value = json_[key].get<int64_t>();
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

absl::Status ConfigReader::CheckVariant() {
  const Json* names =
      Has(json_, "architectures") ? &json_["architectures"] : nullptr;
  if (names == nullptr || !names->is_array() || names->size() != 1 ||
      (*names)[0] != "Gemma3ForCausalLM") {
    return Unsupported(
        absl::StrCat("unsupported architecture: found ",
                     names == nullptr ? "none" : names->dump(-1, ' ', true),
                     ", supported: [\"Gemma3ForCausalLM\"]"));
  }
  for (const char* key : {"final_logit_softcapping", "attn_logit_softcapping",
                          "quantization_config"}) {
    if (Has(json_, key)) {
      return Unsupported(absl::StrCat(key, " is set, expected none"));
    }
  }
  const std::pair<const char*, bool> expected[] = {
      {"attention_bias", false},
      {"use_bidirectional_attention", false},
      {"tie_word_embeddings", true}};
  for (const auto& [key, value] : expected) {
    if (Has(json_, key) && json_[key] != value) {
      return Unsupported(
          absl::StrCat(key, ": expected ", value ? "true" : "false"));
    }
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
  if (scaling[key] != "linear") {
    return Unsupported(absl::StrCat("rope type ",
                                    scaling[key].dump(-1, ' ', true),
                                    ", supported: default and linear"));
  }
  return Real(scaling, "factor", config.rope_scaling_factor);
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

absl::Status ConfigReader::ReadPattern(GemmaConfig& config) {
  if (!Has(json_, "layer_types")) {
    for (const char* key :
         {"sliding_window_pattern", "_sliding_window_pattern"}) {
      if (Has(json_, key)) {
        return Int(key, kLayersMax, config.sliding_window_pattern);
      }
    }
    return absl::OkStatus();
  }
  const Json& types = json_["layer_types"];
  if (!types.is_array() ||
      static_cast<int64_t>(types.size()) != config.layers) {
    return CorruptFile(
        path_, absl::StrCat("layer_types: expected ", config.layers, " names"));
  }
  config.sliding_window_pattern = config.layers + 1;  // no global layer
  for (int64_t i = config.layers - 1; i >= 0; --i) {
    if (types[i] == "full_attention") config.sliding_window_pattern = i + 1;
  }
  for (int64_t i = 0; i < config.layers; ++i) {
    if (types[i] !=
        (config.IsGlobalLayer(i) ? "full_attention" : "sliding_attention")) {
      return Unsupported(absl::StrCat(
          "layer_types: layer ", i, " is ", types[i].dump(-1, ' ', true),
          ", not in the pattern of every ", config.sliding_window_pattern,
          "th layer global"));
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

absl::StatusOr<GemmaConfig> ConfigReader::Read() {
  RETURN_IF_ERROR(CheckVariant());
  GemmaConfig config;
  const struct {
    const char* key;
    int64_t max;
    int64_t* value;
  } numbers[] = {
      {"vocab_size", int64_t{1} << 24, &config.vocab_size},
      {"hidden_size", kWidthMax, &config.hidden},
      {"intermediate_size", kWidthMax, &config.ff},
      {"num_hidden_layers", kLayersMax, &config.layers},
      {"num_attention_heads", kWidthMax, &config.heads},
      {"num_key_value_heads", kWidthMax, &config.kv_heads},
      {"head_dim", kWidthMax, &config.head_dim},
      {"sliding_window", int64_t{1} << 31, &config.sliding_window},
      {"max_position_embeddings", int64_t{1} << 31, &config.context_length}};
  for (const auto& number : numbers) {
    RETURN_IF_ERROR(Int(number.key, number.max, *number.value));
  }
  if (config.heads % config.kv_heads != 0 || config.head_dim % 2 != 0 ||
      config.heads * config.head_dim > kWidthMax) {
    return CorruptFile(path_,
                       "num_attention_heads, num_key_value_heads and head_dim "
                       "do not fit each other");
  }
  RETURN_IF_ERROR(Real(json_, "rms_norm_eps", config.rms_eps));
  RETURN_IF_ERROR(ReadRope(config));
  RETURN_IF_ERROR(ReadPattern(config));
  RETURN_IF_ERROR(ReadTokenIds(config));
  double query_scale = 0;
  RETURN_IF_ERROR(Real(json_, "query_pre_attn_scalar", query_scale));
  const double expected =
      config.layers == kLayers27B
          ? static_cast<double>(config.hidden) / config.heads
          : static_cast<double>(config.head_dim);
  if (query_scale != expected) {
    return Unsupported(absl::StrCat("query_pre_attn_scalar: found ",
                                    query_scale, ", a GGUF file stands for ",
                                    expected));
  }
  config.attention_scale = 1.0 / std::sqrt(query_scale);
  return config;
}

}  // namespace

absl::StatusOr<GemmaConfig> ConfigFromHfJson(absl::string_view text,
                                             const std::string& path) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return CorruptFile(path, "not a JSON object");
  return ConfigReader(json, path).Read();
}

std::map<std::string, GgufValue> GemmaMetadata(const GemmaConfig& config) {
  std::map<std::string, GgufValue> metadata = {
      {"general.architecture", std::string(kArchitecture)},
      {"gemma3.attention.layer_norm_rms_epsilon",
       static_cast<float>(config.rms_eps)},
      {"gemma3.rope.freq_base", static_cast<float>(config.rope_theta_global)},
      {"gemma3.rope.freq_base_swa",
       static_cast<float>(config.rope_theta_local)},
  };
  const std::pair<const char*, int64_t> numbers[] = {
      {"context_length", config.context_length},
      {"embedding_length", config.hidden},
      {"block_count", config.layers},
      {"feed_forward_length", config.ff},
      {"attention.head_count", config.heads},
      {"attention.head_count_kv", config.kv_heads},
      {"attention.key_length", config.head_dim},
      {"attention.value_length", config.head_dim},
      {"attention.sliding_window", config.sliding_window},
      {"attention.sliding_window_pattern", config.sliding_window_pattern}};
  for (const auto& [key, value] : numbers) {
    metadata[absl::StrCat("gemma3.", key)] = static_cast<uint32_t>(value);
  }
  if (config.rope_scaling_factor != 1.0) {
    metadata["gemma3.rope.scaling.type"] = std::string("linear");
    metadata["gemma3.rope.scaling.factor"] =
        static_cast<float>(config.rope_scaling_factor);
  }
  return metadata;
}

}  // namespace onegrid::model
