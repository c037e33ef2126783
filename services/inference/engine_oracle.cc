#include "services/inference/engine_oracle.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "gtest/gtest.h"
#include "kernels/reference/ops.h"
#include "services/inference/tiny_model.h"
#include "services/model/tensor_ops.h"

namespace onegrid::inference {
namespace {

class Oracle {
 public:
  Oracle(const model::GgufFile& file, const model::GemmaConfig& config,
         const model::Adapter* adapter)
      : file_(file), c_(config), adapter_(adapter) {}

  Rows Run(const std::vector<int32_t>& tokens) {
    const int64_t t = static_cast<int64_t>(tokens.size());
    std::vector<int32_t> positions(t);
    for (int64_t i = 0; i < t; ++i) positions[i] = static_cast<int32_t>(i);
    const std::vector<float> embedding = Get("token_embd");
    std::vector<float> x;
    for (int32_t token : tokens) {
      for (int64_t i = 0; i < c_.hidden; ++i) {
        x.push_back(embedding[token * c_.hidden + i] *
                    std::sqrt(static_cast<float>(c_.hidden)));
      }
    }
    for (int layer = 0; layer < c_.layer_count(); ++layer) {
      prefix_ = "blk." + std::to_string(layer) + ".";
      Layer(layer, t, positions, &x);
    }
    prefix_ = "";
    x = Norm(x, "output_norm", t);
    const std::vector<float> logits =
        reference::MatMul(x, c_.tied_head ? embedding : Get("output"), t,
                          c_.vocab_size, c_.hidden);
    Rows rows;
    for (int64_t i = 0; i < t; ++i) {
      rows.emplace_back(logits.begin() + i * c_.vocab_size,
                        logits.begin() + (i + 1) * c_.vocab_size);
    }
    return rows;
  }

 private:
  std::vector<float> Get(const std::string& name) {
    const auto* tensor = file_.Find(prefix_ + name + ".weight");
    return *model::DequantizeTensor(*tensor);
  }
  std::vector<float> Norm(const std::vector<float>& x, const char* name,
                          int64_t rows) {
    const std::vector<float> w = Get(name);
    return reference::RmsNorm(x, w, rows, w.size(), c_.rms_eps);
  }
  std::vector<float> Linear(const std::vector<float>& x, const char* name,
                            int64_t t) {
    std::vector<float> w = Get(name);
    Adapt(name, &w);
    const int64_t k = x.size() / t;
    return reference::MatMul(x, w, t, w.size() / k, k);
  }
  // w += scale * B A.
  void Adapt(const std::string& name, std::vector<float>* w) {
    if (adapter_ == nullptr) return;
    for (const model::AdapterPair& pair : adapter_->pairs()) {
      if (pair.spec.gguf_name != prefix_ + name + ".weight") continue;
      for (int64_t o = 0; o < pair.spec.out; ++o) {
        for (int64_t i = 0; i < pair.spec.in; ++i) {
          double sum = 0;
          for (int64_t r = 0; r < pair.rank; ++r) {
            sum += static_cast<double>(FloatAt(pair.b, o * pair.rank + r)) *
                   FloatAt(pair.a, r * pair.spec.in + i);
          }
          (*w)[o * pair.spec.in + i] += static_cast<float>(pair.scale * sum);
        }
      }
    }
  }
  static float FloatAt(absl::Span<const uint8_t> bytes, int64_t index) {
    float value;
    std::memcpy(&value, bytes.data() + index * sizeof(float), sizeof(float));
    return value;
  }
  static void Add(const std::vector<float>& y, std::vector<float>* x) {
    for (size_t i = 0; i < y.size(); ++i) (*x)[i] += y[i];
  }

  void Layer(int layer, int64_t t, const std::vector<int32_t>& positions,
             std::vector<float>* x) {
    const bool global = c_.IsGlobalLayer(layer);
    const double theta = global ? c_.rope_theta_global : c_.rope_theta_local;
    const std::vector<float> in = Norm(*x, "attn_norm", t);
    std::vector<float> q = Linear(in, "attn_q", t);
    std::vector<float> k = Linear(in, "attn_k", t);
    q = Norm(q, "attn_q_norm", t * c_.heads);
    k = Norm(k, "attn_k_norm", t * c_.layers[0].kv_heads);
    q = reference::RopeNeox(q, positions, c_.heads, c_.layers[0].head_dim,
                            theta, 1);
    k = reference::RopeNeox(k, positions, c_.layers[0].kv_heads,
                            c_.layers[0].head_dim, theta, 1);
    const reference::AttentionShape shape{t,
                                          t,
                                          c_.heads,
                                          c_.layers[0].kv_heads,
                                          c_.layers[0].head_dim,
                                          0,
                                          global ? 0 : c_.sliding_window,
                                          c_.attention_scale};
    const std::vector<float> attended =
        reference::Attention(shape, q, k, Linear(in, "attn_v", t));
    Add(Norm(Linear(attended, "attn_output", t), "post_attention_norm", t), x);

    const std::vector<float> m = Norm(*x, "ffn_norm", t);
    std::vector<float> gate = reference::GeluTanh(Linear(m, "ffn_gate", t));
    const std::vector<float> up = Linear(m, "ffn_up", t);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i];
    Add(Norm(Linear(gate, "ffn_down", t), "post_ffw_norm", t), x);
  }

  const model::GgufFile& file_;
  const model::GemmaConfig& c_;
  const model::Adapter* const adapter_;
  std::string prefix_;
};

}  // namespace

Rows RunOracle(const model::GgufFile& file, const model::GemmaConfig& config,
               const std::vector<int32_t>& tokens,
               const model::Adapter* adapter) {
  return Oracle(file, config, adapter).Run(tokens);
}

std::vector<int32_t> RandomTokens(int count, uint32_t seed) {
  std::vector<int32_t> tokens = {kTinyBos};
  while (static_cast<int>(tokens.size()) < count) {
    seed = seed * 1664525u + 1013904223u;
    tokens.push_back(static_cast<int32_t>((seed >> 8) % kTinyVocab));
  }
  return tokens;
}

double MaxDifference(const Rows& a, const Rows& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    for (size_t j = 0; j < a[i].size(); ++j) {
      worst = std::max<double>(worst, std::abs(a[i][j] - b[i][j]));
    }
  }
  return worst;
}

}  // namespace onegrid::inference
