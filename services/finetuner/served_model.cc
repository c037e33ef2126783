#include "services/finetuner/served_model.h"

#include <algorithm>
#include <cmath>

namespace onegrid::finetuner {
namespace {

using reference::QuantizeServed;
using reference::ServedCache;
using reference::ServedInput;

// Positions of a layer's linears and norms, in the orders of GridCheckpoint.
enum LayerLinear { kQ, kK, kV, kOut, kGate, kUp, kDown };
enum LayerNorm {
  kAttentionInput,
  kQueryHead,
  kKeyHead,
  kAttentionOutput,
  kMlpInput,
  kMlpOutput,
  kNormsPerLayer,
};

// Bits of a linear's input: services/inference/numerics.h.
constexpr int kQkvBits = 16;
constexpr int kHeadBits = 16;
constexpr int kOtherBits = 8;

size_t LinearOf(int64_t layer, LayerLinear which) {
  return static_cast<size_t>(layer * kLinearsPerLayer + which);
}

size_t NormOf(int64_t layer, LayerNorm which) {
  return static_cast<size_t>(layer * kNormsPerLayer + which);
}

// Cosines and sines of all positions of one theta, [positions, half] each.
struct Angles {
  Angles(int64_t positions, int64_t head_dim, double theta,
         double position_scale)
      : half(head_dim / 2),
        cosines(static_cast<size_t>(positions * half)),
        sines(cosines.size()) {
    for (int64_t p = 0; p < positions; ++p) {
      reference::ServedRopeAngles(p, half, theta, position_scale,
                                  cosines.data() + p * half,
                                  sines.data() + p * half);
    }
  }

  int64_t half;
  std::vector<float> cosines, sines;
};

}  // namespace

struct ServedModel::Stream {
  int64_t tokens;
  Angles global, local;
  std::vector<float> x;  // [tokens, hidden]
};

ServedModel::ServedModel(const GridCheckpoint& checkpoint,
                         absl::Span<const quant::GridMatrix> linears,
                         kernels::ThreadPool& pool)
    : checkpoint_(checkpoint), linears_(linears), pool_(pool) {}

std::vector<float> ServedModel::Norm(const std::vector<float>& x,
                                     size_t norm) const {
  const std::vector<float>& weight = checkpoint_.norms[norm];
  const auto k = static_cast<int64_t>(weight.size());
  std::vector<float> out(x.size());
  for (size_t at = 0; at < x.size(); at += weight.size()) {
    reference::ServedRmsNorm(x.data() + at, weight.data(), k,
                             static_cast<float>(config().rms_eps),
                             /*add=*/false, out.data() + at);
  }
  return out;
}

void ServedModel::AddNorm(const std::vector<float>& branch, size_t norm,
                          std::vector<float>* x) const {
  const std::vector<float>& weight = checkpoint_.norms[norm];
  const auto k = static_cast<int64_t>(weight.size());
  for (size_t at = 0; at < x->size(); at += weight.size()) {
    reference::ServedRmsNorm(branch.data() + at, weight.data(), k,
                             static_cast<float>(config().rms_eps),
                             /*add=*/true, x->data() + at);
  }
}

void ServedModel::Multiply(const ServedInput& input, const quant::GridMatrix& w,
                           float* out) const {
  pool_.ParallelFor(w.rows, pool_.GrainFor(w.rows),
                    [&](int64_t begin, int64_t end, int) {
                      reference::ServedLinear(input, w, begin, end, out);
                    });
}

std::vector<float> ServedModel::Linear(const ServedInput& input,
                                       size_t linear) const {
  const quant::GridMatrix& w = linears_[linear];
  std::vector<float> out(static_cast<size_t>(input.m * w.rows));
  Multiply(input, w, out.data());
  return out;
}

void ServedModel::NormAndRotate(int64_t layer, int64_t heads, size_t norm,
                                const Stream& stream,
                                std::vector<float>* x) const {
  *x = Norm(*x, norm);
  const Angles& angles =
      config().IsGlobalLayer(layer) ? stream.global : stream.local;
  for (int64_t row = 0; row < stream.tokens * heads; ++row) {
    const int64_t at = row / heads * angles.half;
    reference::ServedRope(angles.cosines.data() + at, angles.sines.data() + at,
                          angles.half, x->data() + row * 2 * angles.half);
  }
}

std::vector<float> ServedModel::Attention(int64_t layer,
                                          const Stream& stream) const {
  const model::GemmaConfig& c = config();
  const int64_t m = stream.tokens, d = c.layers[layer].head_dim;
  const int64_t kv_heads = c.layers[layer].kv_heads;
  const std::vector<float> normed =
      Norm(stream.x, NormOf(layer, kAttentionInput));
  const ServedInput input =
      QuantizeServed(normed.data(), m, c.hidden, kQkvBits);
  std::vector<float> q = Linear(input, LinearOf(layer, kQ));
  std::vector<float> k = Linear(input, LinearOf(layer, kK));
  const std::vector<float> v = Linear(input, LinearOf(layer, kV));
  NormAndRotate(layer, c.heads, NormOf(layer, kQueryHead), stream, &q);
  NormAndRotate(layer, kv_heads, NormOf(layer, kKeyHead), stream, &k);
  ServedCache cache(kv_heads, d);
  for (int64_t t = 0; t < m; ++t) {
    const int64_t row = t * kv_heads * d;
    reference::ServedAppend(k.data() + row, v.data() + row, &cache);
  }
  const int64_t window = c.IsGlobalLayer(layer) ? 0 : c.sliding_window;
  std::vector<float> out(q.size());
  pool_.ParallelFor(m * c.heads, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t kv_head = row % c.heads / (c.heads / kv_heads);
      reference::ServedAttend(q.data() + row * d, cache, kv_head, row / c.heads,
                              window, static_cast<float>(c.attention_scale),
                              out.data() + row * d);
    }
  });
  return Linear(QuantizeServed(out.data(), m, c.heads * d, kOtherBits),
                LinearOf(layer, kOut));
}

std::vector<float> ServedModel::FeedForward(int64_t layer,
                                            const Stream& stream) const {
  const int64_t m = stream.tokens;
  const std::vector<float> normed = Norm(stream.x, NormOf(layer, kMlpInput));
  const ServedInput input =
      QuantizeServed(normed.data(), m, config().hidden, kOtherBits);
  std::vector<float> gate = Linear(input, LinearOf(layer, kGate));
  const std::vector<float> up = Linear(input, LinearOf(layer, kUp));
  reference::ServedGeluMul(gate.data(), up.data(),
                           static_cast<int64_t>(gate.size()), gate.data());
  return Linear(
      QuantizeServed(gate.data(), m, config().layers[layer].ff, kOtherBits),
      LinearOf(layer, kDown));
}

std::vector<float> ServedModel::Hidden(absl::Span<const int32_t> tokens) const {
  const model::GemmaConfig& c = config();
  const auto m = static_cast<int64_t>(tokens.size());
  Stream stream{
      m,
      {m, c.layers[0].head_dim, c.rope_theta_global, c.rope_scaling_factor},
      {m, c.layers[0].head_dim, c.rope_theta_local, 1.0},
      {}};
  const quant::GridMatrix& embedding = checkpoint_.embedding;
  const float scale = std::sqrt(static_cast<float>(c.hidden));
  for (const int32_t token : tokens) {
    for (int64_t i = token * c.hidden; i < (token + 1) * c.hidden; ++i) {
      const float weight =
          static_cast<float>(embedding.codes[static_cast<size_t>(i)]) *
          embedding.scales[static_cast<size_t>(i / embedding.grid->group)];
      stream.x.push_back(weight * scale);
    }
  }
  for (int64_t layer = 0; layer < c.layer_count(); ++layer) {
    AddNorm(Attention(layer, stream), NormOf(layer, kAttentionOutput),
            &stream.x);
    AddNorm(FeedForward(layer, stream), NormOf(layer, kMlpOutput), &stream.x);
  }
  return Norm(stream.x, checkpoint_.norms.size() - 1);
}

void ServedModel::Logits(absl::Span<const float> hidden, float* logits) const {
  const int64_t k = config().hidden;
  Multiply(
      QuantizeServed(hidden.data(), static_cast<int64_t>(hidden.size()) / k, k,
                     kHeadBits),
      checkpoint_.embedding, logits);
}

}  // namespace onegrid::finetuner
