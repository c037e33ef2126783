#include "services/model/gemma_config.h"

#include <algorithm>
#include <cmath>

#include "services/model/gemma_limits.h"

namespace onegrid::model {
namespace {

// The layer count by which llama.cpp, too, tells the 27B from the others.
constexpr int64_t kLayers27B = 62;

template <typename Get>
int64_t MaxOf(const std::vector<GemmaLayer>& layers, Get get) {
  int64_t max = 0;
  for (const GemmaLayer& layer : layers) max = std::max(max, get(layer));
  return max;
}

}  // namespace

int64_t GemmaConfig::head_dim(bool global) const {
  for (const GemmaLayer& layer : layers) {
    if (layer.global == global) return layer.head_dim;
  }
  return layers[0].head_dim;
}

int64_t GemmaConfig::max_head_dim() const {
  return MaxOf(layers, [](const GemmaLayer& layer) { return layer.head_dim; });
}

int64_t GemmaConfig::max_kv_width() const {
  return MaxOf(layers, [](const GemmaLayer& layer) {
    return layer.kv_heads * layer.head_dim;
  });
}

int64_t GemmaConfig::max_ff() const {
  return MaxOf(layers, [](const GemmaLayer& layer) { return layer.ff; });
}

std::vector<GemmaLayer> UniformLayers(int64_t count, int64_t pattern,
                                      GemmaLayer shape) {
  std::vector<GemmaLayer> layers(count, shape);
  for (int64_t i = 0; i < count; ++i) {
    layers[i].global = (i + 1) % pattern == 0;
    layers[i].kv_source = i;
  }
  return layers;
}

bool ShareKv(int64_t shared, std::vector<GemmaLayer>& layers) {
  const int64_t own = static_cast<int64_t>(layers.size()) - shared;
  for (int64_t i = own; i < own + shared; ++i) {
    int64_t source = own - 1;
    while (source >= 0 && layers[source].global != layers[i].global) --source;
    if (source < 0) return false;
    layers[i].kv_source = source;
  }
  return true;
}

std::string ArchitectureName(GemmaFamily family) {
  return family == GemmaFamily::kGemma3 ? "gemma3" : "gemma4";
}

double Gemma3AttentionScale(const GemmaConfig& config) {
  return 1.0 / std::sqrt(Gemma3QueryScale(config));
}

double Gemma3QueryScale(const GemmaConfig& config) {
  return config.layer_count() == kLayers27B
             ? static_cast<double>(config.hidden) / config.heads
             : static_cast<double>(config.layers[0].head_dim);
}

}  // namespace onegrid::model
