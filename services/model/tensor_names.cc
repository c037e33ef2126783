#include "services/model/tensor_names.h"

#include "absl/strings/str_cat.h"

namespace onegrid::model {

std::vector<LinearSpec> GemmaLinears(const GemmaConfig& config) {
  const int64_t q = config.heads * config.head_dim;
  const int64_t kv = config.kv_heads * config.head_dim;
  struct Kind {
    const char* gguf;
    const char* block;
    const char* name;
    int64_t out;
    int64_t in;
  };
  const Kind kinds[] = {
      {"attn_q", "self_attn", "q_proj", q, config.hidden},
      {"attn_k", "self_attn", "k_proj", kv, config.hidden},
      {"attn_v", "self_attn", "v_proj", kv, config.hidden},
      {"attn_output", "self_attn", "o_proj", config.hidden, q},
      {"ffn_gate", "mlp", "gate_proj", config.ff, config.hidden},
      {"ffn_up", "mlp", "up_proj", config.ff, config.hidden},
      {"ffn_down", "mlp", "down_proj", config.hidden, config.ff},
  };
  std::vector<LinearSpec> linears;
  for (int layer = 0; layer < config.layers; ++layer) {
    for (const Kind& kind : kinds) {
      linears.push_back({absl::StrCat("blk.", layer, ".", kind.gguf, ".weight"),
                         absl::StrCat("model.layers.", layer, ".", kind.block,
                                      ".", kind.name),
                         kind.name, layer, kind.out, kind.in});
    }
  }
  return linears;
}

std::vector<NormSpec> GemmaNorms(const GemmaConfig& config) {
  struct Kind {
    const char* gguf;
    const char* hf;
    int64_t size;
  };
  const Kind kinds[] = {
      {"attn_norm", "input_layernorm", config.hidden},
      {"attn_q_norm", "self_attn.q_norm", config.head_dim},
      {"attn_k_norm", "self_attn.k_norm", config.head_dim},
      {"post_attention_norm", "post_attention_layernorm", config.hidden},
      {"ffn_norm", "pre_feedforward_layernorm", config.hidden},
      {"post_ffw_norm", "post_feedforward_layernorm", config.hidden},
  };
  std::vector<NormSpec> norms;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (const Kind& kind : kinds) {
      norms.push_back(
          {absl::StrCat("blk.", layer, ".", kind.gguf, ".weight"),
           absl::StrCat("model.layers.", layer, ".", kind.hf, ".weight"),
           kind.size});
    }
  }
  norms.push_back({"output_norm.weight", "model.norm.weight", config.hidden});
  return norms;
}

}  // namespace onegrid::model
