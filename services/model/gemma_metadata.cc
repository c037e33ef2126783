#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/model/hf_model_config.h"

namespace onegrid::model {
namespace {

using Metadata = std::map<std::string, GgufValue>;

// The number if it is the same in all layers, else one for each.
template <typename Get>
GgufValue ScalarOrPerLayer(const GemmaConfig& config, Get get) {
  std::vector<int32_t> values;
  bool same = true;
  for (const GemmaLayer& layer : config.layers) {
    values.push_back(static_cast<int32_t>(get(layer)));
    same = same && values.back() == values[0];
  }
  if (same) return static_cast<uint32_t>(values[0]);
  return values;
}

void AddGemma3(const GemmaConfig& config, Metadata& metadata) {
  uint32_t pattern = 1;
  while (pattern <= config.layers.size() &&
         !config.layers[pattern - 1].global) {
    ++pattern;
  }
  metadata["gemma3.attention.sliding_window_pattern"] = pattern;
  if (config.rope_scaling_factor != 1.0) {
    metadata["gemma3.rope.scaling.type"] = std::string("linear");
    metadata["gemma3.rope.scaling.factor"] =
        static_cast<float>(config.rope_scaling_factor);
  }
}

void AddGemma4(const GemmaConfig& config, Metadata& metadata) {
  std::vector<bool> sliding;
  int64_t shared = 0;
  const int64_t sliding_dim = config.head_dim(/*global=*/false);
  for (int64_t i = 0; i < config.layer_count(); ++i) {
    const GemmaLayer& layer = config.layers[i];
    sliding.push_back(!layer.global);
    shared += config.HasKv(i) ? 0 : 1;
  }
  metadata["gemma4.attention.sliding_window_pattern"] = sliding;
  metadata["gemma4.final_logit_softcapping"] =
      static_cast<float>(config.logit_softcap);
  std::vector<std::pair<const char*, int64_t>> numbers = {
      {"attention.key_length_swa", sliding_dim},
      {"attention.value_length_swa", sliding_dim},
      {"attention.shared_kv_layers", shared},
      {"embedding_length_per_layer_input", config.per_layer_width},
      {"rope.dimension_count", config.head_dim(/*global=*/true)},
      {"rope.dimension_count_swa", sliding_dim}};
  if (config.experts > 0) {
    numbers.insert(numbers.end(),
                   {{"expert_count", config.experts},
                    {"expert_used_count", config.experts_used},
                    {"expert_feed_forward_length", config.expert_ff}});
  }
  for (const auto& [key, value] : numbers) {
    metadata[absl::StrCat("gemma4.", key)] = static_cast<uint32_t>(value);
  }
}

}  // namespace

std::map<std::string, GgufValue> GemmaMetadata(const GemmaConfig& config) {
  const std::string architecture = ArchitectureName(config.family);
  Metadata metadata = {{"general.architecture", architecture}};
  const auto set = [&](const char* key, GgufValue value) {
    metadata[absl::StrCat(architecture, ".", key)] = std::move(value);
  };
  const int64_t head_dim = config.head_dim(/*global=*/true);
  const std::pair<const char*, int64_t> numbers[] = {
      {"context_length", config.context_length},
      {"embedding_length", config.hidden},
      {"block_count", config.layer_count()},
      {"attention.head_count", config.heads},
      {"attention.key_length", head_dim},
      {"attention.value_length", head_dim},
      {"attention.sliding_window", config.sliding_window}};
  for (const auto& [key, value] : numbers) {
    set(key, static_cast<uint32_t>(value));
  }
  set("feed_forward_length",
      ScalarOrPerLayer(config, [](const GemmaLayer& l) { return l.ff; }));
  set("attention.head_count_kv",
      ScalarOrPerLayer(config, [](const GemmaLayer& l) { return l.kv_heads; }));
  set("attention.layer_norm_rms_epsilon", static_cast<float>(config.rms_eps));
  set("rope.freq_base", static_cast<float>(config.rope_theta_global));
  set("rope.freq_base_swa", static_cast<float>(config.rope_theta_local));
  if (config.family == GemmaFamily::kGemma3) {
    AddGemma3(config, metadata);
  } else {
    AddGemma4(config, metadata);
  }
  return metadata;
}

}  // namespace onegrid::model
