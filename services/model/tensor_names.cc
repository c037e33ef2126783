#include "services/model/tensor_names.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace onegrid::model {
namespace {

// One kind of tensor in a layer.
struct Kind {
  const char* gguf;  // "attn_q"
  const char* hf;    // "self_attn.q_proj"
};
constexpr Kind kQ = {"attn_q", "self_attn.q_proj"};
constexpr Kind kK = {"attn_k", "self_attn.k_proj"};
constexpr Kind kV = {"attn_v", "self_attn.v_proj"};
constexpr Kind kO = {"attn_output", "self_attn.o_proj"};
constexpr Kind kGate = {"ffn_gate", "mlp.gate_proj"};
constexpr Kind kUp = {"ffn_up", "mlp.up_proj"};
constexpr Kind kDown = {"ffn_down", "mlp.down_proj"};
constexpr Kind kInputGate = {"inp_gate", "per_layer_input_gate"};
constexpr Kind kInputOut = {"proj", "per_layer_projection"};
constexpr Kind kExpertsUp = {"ffn_gate_up_exps", "experts.gate_up_proj"};
constexpr Kind kExpertsDown = {"ffn_down_exps", "experts.down_proj"};

std::string Block(int64_t layer, const std::string& gguf) {
  return absl::StrCat("blk.", layer, ".", gguf);
}

std::string Module(int64_t layer, const std::string& hf) {
  return absl::StrCat("model.layers.", layer, ".", hf);
}

LinearSpec Linear(int64_t layer, const Kind& kind, int64_t out, int64_t in,
                  int64_t experts = 1) {
  const std::string hf = kind.hf;
  return {Block(layer, absl::StrCat(kind.gguf, ".weight")),
          Module(layer, hf),
          hf.substr(hf.rfind('.') + 1),
          static_cast<int>(layer),
          out * experts,
          in,
          experts};
}

void AddLayerNorms(const GemmaConfig& config, int64_t i,
                   std::vector<NormSpec>& norms) {
  const GemmaLayer& layer = config.layers[i];
  const float offset = config.family == GemmaFamily::kGemma3 ? 1 : 0;
  const auto add = [&](const char* gguf, const char* hf, int64_t size,
                       int64_t rows = 0) {
    norms.push_back({Block(i, gguf), Module(i, hf), size, offset, rows});
  };
  const int64_t hidden = config.hidden;
  add("attn_norm.weight", "input_layernorm.weight", hidden);
  add("attn_q_norm.weight", "self_attn.q_norm.weight", layer.head_dim);
  if (config.HasKv(i)) {
    add("attn_k_norm.weight", "self_attn.k_norm.weight", layer.head_dim);
  }
  add("post_attention_norm.weight", "post_attention_layernorm.weight", hidden);
  add("ffn_norm.weight", "pre_feedforward_layernorm.weight", hidden);
  add("post_ffw_norm.weight", "post_feedforward_layernorm.weight", hidden);
  if (config.family == GemmaFamily::kGemma3) return;
  if (config.per_layer_width > 0) {
    add("post_norm.weight", "post_per_layer_input_norm.weight", hidden);
  }
  if (config.experts > 0) {
    add("post_ffw_norm_1.weight", "post_feedforward_layernorm_1.weight",
        hidden);
    add("pre_ffw_norm_2.weight", "pre_feedforward_layernorm_2.weight", hidden);
    add("post_ffw_norm_2.weight", "post_feedforward_layernorm_2.weight",
        hidden);
    add("ffn_gate_inp.weight", "router.proj.weight", hidden, config.experts);
    add("ffn_gate_inp.scale", "router.scale", hidden);
    add("ffn_down_exps.scale", "router.per_expert_scale", config.experts);
  }
  add("layer_output_scale.weight", "layer_scalar", 1);
}

}  // namespace

std::string LinearSpec::HfWeightName() const {
  return experts > 1 ? hf_name : absl::StrCat(hf_name, ".weight");
}

std::vector<int64_t> LinearSpec::HfShape() const {
  if (experts > 1) return {experts, out / experts, in};
  return {out, in};
}

std::vector<int64_t> LinearSpec::GgufDims() const {
  if (experts > 1) return {in, out / experts, experts};
  return {in, out};
}

std::vector<int64_t> NormSpec::HfShape() const {
  if (rows > 0) return {rows, size};
  return {size};
}

std::vector<int64_t> NormSpec::GgufDims() const {
  if (rows > 0) return {size, rows};
  return {size};
}

std::vector<TableSpec> GemmaTables(const GemmaConfig& config) {
  std::vector<TableSpec> tables = {
      {kGgufEmbedding, kHfEmbedding, config.vocab_size, config.hidden}};
  if (config.per_layer_width > 0) {
    tables.push_back({kGgufPerLayerEmbedding, kHfPerLayerEmbedding,
                      config.vocab_size,
                      config.layer_count() * config.per_layer_width});
  }
  return tables;
}

std::vector<LinearSpec> GemmaLinears(const GemmaConfig& config) {
  const int64_t hidden = config.hidden, width = config.per_layer_width;
  std::vector<LinearSpec> linears;
  for (int64_t i = 0; i < config.layer_count(); ++i) {
    const GemmaLayer& layer = config.layers[i];
    const int64_t q = config.heads * layer.head_dim;
    const int64_t kv = layer.kv_heads * layer.head_dim;
    linears.push_back(Linear(i, kQ, q, hidden));
    if (config.HasKv(i)) linears.push_back(Linear(i, kK, kv, hidden));
    if (config.HasKv(i) && !layer.value_is_key) {
      linears.push_back(Linear(i, kV, kv, hidden));
    }
    linears.push_back(Linear(i, kO, hidden, q));
    linears.push_back(Linear(i, kGate, layer.ff, hidden));
    linears.push_back(Linear(i, kUp, layer.ff, hidden));
    linears.push_back(Linear(i, kDown, hidden, layer.ff));
    if (width > 0) {
      linears.push_back(Linear(i, kInputGate, width, hidden));
      linears.push_back(Linear(i, kInputOut, hidden, width));
    }
    if (config.experts > 0) {
      linears.push_back(
          Linear(i, kExpertsUp, 2 * config.expert_ff, hidden, config.experts));
      linears.push_back(
          Linear(i, kExpertsDown, hidden, config.expert_ff, config.experts));
    }
  }
  if (width > 0) {
    linears.push_back({kGgufPerLayerProjection,
                       "model.per_layer_model_projection",
                       "per_layer_model_projection", -1,
                       config.layer_count() * width, hidden});
  }
  if (!config.tied_head) {
    linears.push_back(
        {kGgufHead, kHfHead, kHfHead, -1, config.vocab_size, hidden});
  }
  return linears;
}

std::vector<NormSpec> GemmaNorms(const GemmaConfig& config) {
  std::vector<NormSpec> norms;
  for (int64_t i = 0; i < config.layer_count(); ++i) {
    AddLayerNorms(config, i, norms);
  }
  if (config.per_layer_width > 0) {
    norms.push_back({"per_layer_proj_norm.weight",
                     "model.per_layer_projection_norm.weight",
                     config.per_layer_width, 0});
  }
  if (config.rope_global_pairs > 0) {
    norms.push_back({kGgufRopeFactors, "",
                     static_cast<int64_t>(RopeFactors(config).size()), 0});
  }
  norms.push_back({"output_norm.weight", "model.norm.weight", config.hidden,
                   config.family == GemmaFamily::kGemma3 ? 1.0f : 0.0f});
  return norms;
}

std::vector<std::string> LinearSuffixes() {
  std::vector<std::string> suffixes;
  for (const Kind& kind : {kQ, kK, kV, kO, kGate, kUp, kDown, kInputGate,
                           kInputOut, kExpertsUp, kExpertsDown}) {
    suffixes.push_back(absl::StrCat(kind.gguf, ".weight"));
  }
  return suffixes;
}

std::vector<float> RopeFactors(const GemmaConfig& config) {
  // What llama.cpp's converter writes for a pair that does not rotate.
  constexpr float kNever = 1e30f;
  int64_t pairs = 0;
  for (const GemmaLayer& layer : config.layers) {
    if (layer.global) pairs = layer.head_dim / 2;
  }
  std::vector<float> factors(pairs, 1.0f);
  std::fill(factors.begin() + std::min(pairs, config.rope_global_pairs),
            factors.end(), kNever);
  return factors;
}

bool IsUnusedKv(const GemmaConfig& config, const std::string& name) {
  for (int64_t i = 0; i < config.layer_count(); ++i) {
    if (config.HasKv(i)) continue;
    for (const char* part : {"attn_k.", "attn_v.", "attn_k_norm."}) {
      if (absl::StartsWith(name, Block(i, part))) return true;
    }
    for (const char* part : {"self_attn.k_proj.", "self_attn.v_proj.",
                             "self_attn.k_norm.", "self_attn.v_norm."}) {
      if (absl::StartsWith(name, Module(i, part))) return true;
    }
  }
  return false;
}

}  // namespace onegrid::model
