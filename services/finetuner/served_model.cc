#include "services/finetuner/served_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/reference/expert_choice.h"

namespace onegrid::finetuner {
namespace {

using reference::QuantizeServed;
using reference::ServedCache;
using reference::ServedInput;

// Bits of a linear's input: services/inference/numerics.h.
constexpr int kQkvBits = 16;
constexpr int kHeadBits = 16;
constexpr int kOtherBits = 8;

// Cosines and sines of all positions of one theta, [positions, half] each.
struct Angles {
  Angles(int64_t positions, int64_t head_dim, double theta,
         double position_scale, int64_t pairs = 0)
      : half(head_dim / 2),
        cosines(static_cast<size_t>(positions * half)),
        sines(cosines.size()) {
    for (int64_t p = 0; p < positions; ++p) {
      reference::ServedRopeAngles(p, half, theta, position_scale,
                                  cosines.data() + p * half,
                                  sines.data() + p * half, pairs);
    }
  }

  int64_t half;
  std::vector<float> cosines, sines;
};

// A row of a matrix in floats.
void AppendRow(const quant::GridMatrix& matrix, int64_t row, float factor,
               std::vector<float>* out) {
  for (int64_t i = row * matrix.cols; i < (row + 1) * matrix.cols; ++i) {
    const float weight =
        static_cast<float>(matrix.codes[static_cast<size_t>(i)]) *
        matrix.scales[static_cast<size_t>(i / matrix.grid->group)];
    out->push_back(weight * factor);
  }
}

// Rows [begin, end) of a matrix.
quant::GridMatrix RowsOf(const quant::GridMatrix& matrix, int64_t begin,
                         int64_t end) {
  const int64_t cols = matrix.cols, groups = cols / matrix.grid->group;
  quant::GridMatrix part;
  part.grid = matrix.grid;
  part.rows = end - begin;
  part.cols = cols;
  part.codes.assign(matrix.codes.begin() + begin * cols,
                    matrix.codes.begin() + end * cols);
  part.scales.assign(matrix.scales.begin() + begin * groups,
                     matrix.scales.begin() + end * groups);
  return part;
}

}  // namespace

struct ServedModel::Stream {
  int64_t tokens;
  Angles global, local;
  std::vector<float> x;             // [tokens, hidden]
  std::vector<float> per_layer;     // [tokens, layers, width]
  std::vector<ServedCache> caches;  // by layer
};

ServedModel::ServedModel(const GridCheckpoint& checkpoint,
                         absl::Span<const quant::GridMatrix> linears,
                         kernels::ThreadPool& pool)
    : checkpoint_(checkpoint),
      layout_(checkpoint.specs),
      norms_(checkpoint.config),
      linears_(linears),
      pool_(pool) {}

std::vector<float> ServedModel::NormBy(const std::vector<float>& x,
                                       const std::vector<float>& weight) const {
  const auto k = static_cast<int64_t>(weight.size());
  std::vector<float> out(x.size());
  for (size_t at = 0; at < x.size(); at += weight.size()) {
    reference::ServedRmsNorm(x.data() + at, weight.data(), k,
                             static_cast<float>(config().rms_eps),
                             /*add=*/false, out.data() + at);
  }
  return out;
}

std::vector<float> ServedModel::Norm(const std::vector<float>& x,
                                     int64_t norm) const {
  return NormBy(x, checkpoint_.norms[static_cast<size_t>(norm)]);
}

void ServedModel::AddNorm(const std::vector<float>& branch, int64_t norm,
                          std::vector<float>* x) const {
  const std::vector<float>& weight =
      checkpoint_.norms[static_cast<size_t>(norm)];
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
                                       int64_t linear) const {
  const quant::GridMatrix& w = linears_[static_cast<size_t>(linear)];
  std::vector<float> out(static_cast<size_t>(input.m * w.rows));
  Multiply(input, w, out.data());
  return out;
}

void ServedModel::NormAndRotate(int64_t layer, int64_t heads, int64_t norm,
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

void ServedModel::AppendKeysAndValues(int64_t layer, const ServedInput& input,
                                      Stream* stream) const {
  const model::GemmaLayer& shape = config().layers[layer];
  const int64_t d = shape.head_dim, width = shape.kv_heads * d;
  const GroupSpan qkv = layout_.Of(layer, LinearGroup::kQkv);
  std::vector<float> k = Linear(input, qkv.begin + 1);
  std::vector<float> v = shape.value_is_key ? k : Linear(input, qkv.begin + 2);
  if (config().family == model::GemmaFamily::kGemma4) {
    v = NormBy(v, std::vector<float>(static_cast<size_t>(d), 1.0f));
  }
  NormAndRotate(layer, shape.kv_heads, NormOf(layer, LayerNorm::kKey), *stream,
                &k);
  for (int64_t t = 0; t < stream->tokens; ++t) {
    reference::ServedAppend(k.data() + t * width, v.data() + t * width,
                            &stream->caches[static_cast<size_t>(layer)]);
  }
}

std::vector<float> ServedModel::Attention(int64_t layer, Stream* stream) const {
  const model::GemmaConfig& c = config();
  const model::GemmaLayer& shape = c.layers[layer];
  const int64_t m = stream->tokens, d = shape.head_dim;
  const std::vector<float> normed =
      Norm(stream->x, NormOf(layer, LayerNorm::kAttentionInput));
  const ServedInput input =
      QuantizeServed(normed.data(), m, c.hidden, kQkvBits);
  std::vector<float> q =
      Linear(input, layout_.Of(layer, LinearGroup::kQkv).begin);
  NormAndRotate(layer, c.heads, NormOf(layer, LayerNorm::kQuery), *stream, &q);
  if (c.HasKv(layer)) AppendKeysAndValues(layer, input, stream);
  const ServedCache& cache =
      stream->caches[static_cast<size_t>(shape.kv_source)];
  const int64_t window = shape.global ? 0 : c.sliding_window;
  std::vector<float> out(q.size());
  pool_.ParallelFor(m * c.heads, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t kv_head = row % c.heads / (c.heads / shape.kv_heads);
      reference::ServedAttend(q.data() + row * d, cache, kv_head, row / c.heads,
                              window, static_cast<float>(c.attention_scale),
                              out.data() + row * d);
    }
  });
  return Linear(QuantizeServed(out.data(), m, c.heads * d, kOtherBits),
                layout_.Of(layer, LinearGroup::kOutput).begin);
}

std::vector<float> ServedModel::FeedForward(int64_t layer,
                                            const Stream& stream) const {
  const int64_t m = stream.tokens;
  const std::vector<float> normed =
      Norm(stream.x, NormOf(layer, LayerNorm::kMlpInput));
  const ServedInput input =
      QuantizeServed(normed.data(), m, config().hidden, kOtherBits);
  const GroupSpan gate_up = layout_.Of(layer, LinearGroup::kGateUp);
  std::vector<float> gate = Linear(input, gate_up.begin);
  const std::vector<float> up = Linear(input, gate_up.begin + 1);
  reference::ServedGeluMul(gate.data(), up.data(),
                           static_cast<int64_t>(gate.size()), gate.data());
  std::vector<float> branch = Linear(
      QuantizeServed(gate.data(), m, config().layers[layer].ff, kOtherBits),
      layout_.Of(layer, LinearGroup::kDown).begin);
  if (config().experts > 0) {
    branch = Norm(branch, NormOf(layer, LayerNorm::kDenseOutput));
    AddExperts(layer, stream, &branch);
  }
  return branch;
}

void ServedModel::AddExperts(int64_t layer, const Stream& stream,
                             std::vector<float>* branch) const {
  const model::GemmaConfig& c = config();
  const auto weights = [&](LayerNorm norm) -> const std::vector<float>& {
    return checkpoint_.norms[static_cast<size_t>(NormOf(layer, norm))];
  };
  const std::vector<float> routed =
      NormBy(stream.x, reference::RouterNorm(weights(LayerNorm::kRouterScale)));
  const std::vector<float> normed =
      Norm(stream.x, NormOf(layer, LayerNorm::kExpertsInput));
  // Behind the layer's other linears.
  int64_t gate_up = layout_.Of(layer, LinearGroup::kDown).end;
  const quant::GridMatrix& up = linears_[static_cast<size_t>(gate_up)];
  const quant::GridMatrix& down = linears_[static_cast<size_t>(gate_up + 1)];
  const int64_t ff = c.expert_ff;
  std::vector<float> sum(stream.x.size(), 0.0f);
  for (int64_t t = 0; t < stream.tokens; ++t) {
    const ServedInput input =
        QuantizeServed(normed.data() + t * c.hidden, 1, c.hidden, kOtherBits);
    for (const reference::ExpertChoice& choice : reference::ChooseExperts(
             reference::RouterLogits(absl::MakeConstSpan(routed).subspan(
                                         static_cast<size_t>(t * c.hidden),
                                         static_cast<size_t>(c.hidden)),
                                     weights(LayerNorm::kRouter)),
             c.experts_used, weights(LayerNorm::kExpertScale))) {
      std::vector<float> both(static_cast<size_t>(2 * ff));
      Multiply(input,
               RowsOf(up, choice.expert * 2 * ff, (choice.expert + 1) * 2 * ff),
               both.data());
      reference::ServedGeluMul(both.data(), both.data() + ff, ff, both.data());
      std::vector<float> out(static_cast<size_t>(c.hidden));
      Multiply(QuantizeServed(both.data(), 1, ff, kOtherBits),
               RowsOf(down, choice.expert * c.hidden,
                      (choice.expert + 1) * c.hidden),
               out.data());
      for (int64_t i = 0; i < c.hidden; ++i) {
        sum[static_cast<size_t>(t * c.hidden + i)] +=
            out[static_cast<size_t>(i)] * choice.weight;
      }
    }
  }
  AddNorm(sum, NormOf(layer, LayerNorm::kExpertsOutput), branch);
}

void ServedModel::EmbedPerLayer(absl::Span<const int32_t> tokens,
                                Stream* stream) const {
  const model::GemmaConfig& c = config();
  if (c.per_layer_width == 0) return;
  std::vector<float> projected = Linear(
      QuantizeServed(stream->x.data(), stream->tokens, c.hidden, kQkvBits),
      LinearNamed(checkpoint_.specs, model::kGgufPerLayerProjection));
  const float root = 1.0f / std::sqrt(static_cast<float>(c.hidden));
  for (float& value : projected) value *= root;
  projected = Norm(projected, norms_.per_layer_input());
  const float token_scale = std::sqrt(static_cast<float>(c.per_layer_width));
  std::vector<float> looked_up;
  for (const int32_t token : tokens) {
    AppendRow(*checkpoint_.per_layer_embedding, token, token_scale, &looked_up);
  }
  const float half_root = std::sqrt(0.5f);
  for (size_t i = 0; i < projected.size(); ++i) {
    projected[i] = (projected[i] + looked_up[i]) * half_root;
  }
  stream->per_layer = std::move(projected);
}

void ServedModel::AddPerLayerInput(int64_t layer, Stream* stream) const {
  const model::GemmaConfig& c = config();
  const int64_t m = stream->tokens, width = c.per_layer_width;
  if (width > 0) {
    std::vector<float> gate =
        Linear(QuantizeServed(stream->x.data(), m, c.hidden, kOtherBits),
               layout_.Of(layer, LinearGroup::kInputGate).begin);
    for (int64_t t = 0; t < m; ++t) {
      reference::ServedGeluMul(
          gate.data() + t * width,
          stream->per_layer.data() + (t * c.layer_count() + layer) * width,
          width, gate.data() + t * width);
    }
    AddNorm(Linear(QuantizeServed(gate.data(), m, width, kOtherBits),
                   layout_.Of(layer, LinearGroup::kInputOut).begin),
            NormOf(layer, LayerNorm::kInputOutput), &stream->x);
  }
  const int64_t scale = NormOf(layer, LayerNorm::kOutputScale);
  if (scale < 0) return;
  const float factor = checkpoint_.norms[static_cast<size_t>(scale)][0];
  for (float& value : stream->x) value *= factor;
}

std::vector<float> ServedModel::Hidden(absl::Span<const int32_t> tokens) const {
  const model::GemmaConfig& c = config();
  const auto m = static_cast<int64_t>(tokens.size());
  Stream stream{m,
                {m, c.head_dim(/*global=*/true), c.rope_theta_global,
                 c.rope_scaling_factor, c.rope_global_pairs},
                {m, c.head_dim(/*global=*/false), c.rope_theta_local, 1.0},
                {},
                {},
                {}};
  for (const model::GemmaLayer& layer : c.layers) {
    stream.caches.emplace_back(layer.kv_heads, layer.head_dim);
  }
  const float scale = std::sqrt(static_cast<float>(c.hidden));
  for (const int32_t token : tokens) {
    AppendRow(checkpoint_.embedding, token, scale, &stream.x);
  }
  EmbedPerLayer(tokens, &stream);
  for (int64_t layer = 0; layer < c.layer_count(); ++layer) {
    AddNorm(Attention(layer, &stream),
            NormOf(layer, LayerNorm::kAttentionOutput), &stream.x);
    AddNorm(FeedForward(layer, stream), NormOf(layer, LayerNorm::kMlpOutput),
            &stream.x);
    AddPerLayerInput(layer, &stream);
  }
  return Norm(stream.x, static_cast<int64_t>(checkpoint_.norms.size()) - 1);
}

void ServedModel::Logits(absl::Span<const float> hidden, float* logits) const {
  const int64_t k = config().hidden;
  const quant::GridMatrix& head =
      config().tied_head ? checkpoint_.embedding
                         : linears_[static_cast<size_t>(LinearNamed(
                               checkpoint_.specs, model::kGgufHead))];
  Multiply(
      QuantizeServed(hidden.data(), static_cast<int64_t>(hidden.size()) / k, k,
                     kHeadBits),
      head, logits);
  if (config().logit_softcap > 0) {
    const int64_t count =
        static_cast<int64_t>(hidden.size()) / k * config().vocab_size;
    reference::ServedSoftCap(static_cast<float>(config().logit_softcap), count,
                             logits);
  }
}

}  // namespace onegrid::finetuner
