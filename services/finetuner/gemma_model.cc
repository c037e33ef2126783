#include "services/finetuner/gemma_model.h"

#include <c10/core/GradMode.h>

#include <cmath>
#include <utility>

#include "services/finetuner/lora_linear.h"
#include "services/finetuner/transformer_ops.h"

namespace onegrid::finetuner {
namespace {

// A mask of 0 and 1 / (1 - p), or an undefined tensor.
at::Tensor DropoutMask(const at::Tensor& x, const ForwardOptions& options) {
  if (options.dropout_random == nullptr || options.adapter == nullptr) {
    return at::Tensor();
  }
  const double p = options.adapter->options().dropout;
  if (p == 0) return at::Tensor();
  return at::empty(x.sizes(), at::kFloat)
      .bernoulli_(1.0 - p, *options.dropout_random)
      .div_(1.0 - p)
      .to(x.scalar_type());
}

}  // namespace

at::Tensor DequantizeTensor(const quant::GridMatrix& matrix) {
  at::Tensor out = at::empty({matrix.rows, matrix.cols}, at::kFloat);
  quant::DequantizeMatrix(matrix,
                          absl::MakeSpan(out.mutable_data_ptr<float>(),
                                         static_cast<size_t>(out.numel())));
  return out;
}

namespace {

// Everything but the linears. `Checkpoint` has config and norms.
template <typename Checkpoint>
std::shared_ptr<SharedWeights> MakeShared(const Checkpoint& checkpoint,
                                          const at::Tensor& embedding,
                                          int64_t max_positions) {
  auto shared = std::make_shared<SharedWeights>();
  const model::GemmaConfig& config = checkpoint.config;
  shared->config = config;
  shared->embedding = shared->head = embedding;
  for (const std::vector<float>& norm : checkpoint.norms) {
    shared->norms.push_back(at::from_blob(const_cast<float*>(norm.data()),
                                          {static_cast<int64_t>(norm.size())},
                                          at::kFloat)
                                .clone());
  }
  shared->rope_local =
      MakeRopeTable(max_positions, config.head_dim(/*global=*/false),
                    config.rope_theta_local, 1.0);
  shared->rope_global = MakeRopeTable(
      max_positions, config.head_dim(/*global=*/true), config.rope_theta_global,
      config.rope_scaling_factor, config.rope_global_pairs);
  return shared;
}

// Rows of a matrix that stays in codes.
at::Tensor DequantizeRows(const quant::GridMatrix& matrix,
                          const at::Tensor& ids) {
  const int64_t cols = matrix.cols, group = matrix.grid->group;
  at::Tensor rows = at::empty({ids.numel(), cols}, at::kFloat);
  float* out = rows.mutable_data_ptr<float>();
  const int32_t* id = ids.const_data_ptr<int32_t>();
  for (int64_t r = 0; r < ids.numel(); ++r) {
    for (int64_t i = 0; i < cols; ++i) {
      const int64_t at = id[r] * cols + i;
      *out++ = static_cast<float>(matrix.codes[static_cast<size_t>(at)]) *
               matrix.scales[static_cast<size_t>(at / group)];
    }
  }
  return rows;
}

}  // namespace

std::shared_ptr<const SharedWeights> MakeSharedWeights(
    const GridCheckpoint& checkpoint, int64_t max_positions) {
  auto shared = MakeShared(checkpoint, DequantizeTensor(checkpoint.embedding),
                           max_positions);
  const auto linear = [&](const char* gguf_name) {
    return DequantizeTensor(checkpoint.linears[static_cast<size_t>(
        LinearNamed(checkpoint.specs, gguf_name))]);
  };
  if (!checkpoint.config.tied_head) shared->head = linear(model::kGgufHead);
  if (checkpoint.config.per_layer_width > 0) {
    shared->per_layer_projection = linear(model::kGgufPerLayerProjection);
    shared->per_layer_rows =
        [table = checkpoint.per_layer_embedding](const at::Tensor& ids) {
          return DequantizeRows(*table, ids);
        };
  }
  return shared;
}

std::shared_ptr<const SharedWeights> MakeSharedWeights(
    const FloatCheckpoint& checkpoint, int64_t max_positions) {
  auto shared = MakeShared(checkpoint, checkpoint.embedding, max_positions);
  const auto linear = [&](const char* gguf_name) {
    return checkpoint
        .linears[static_cast<size_t>(LinearNamed(checkpoint.specs, gguf_name))];
  };
  if (!checkpoint.config.tied_head) shared->head = linear(model::kGgufHead);
  if (checkpoint.config.per_layer_width > 0) {
    shared->per_layer_projection = linear(model::kGgufPerLayerProjection);
    shared->per_layer_rows =
        [table = checkpoint.per_layer_embedding](const at::Tensor& ids) {
          return at::index_select(table, 0, ids);
        };
  }
  return shared;
}

GemmaModel::GemmaModel(std::shared_ptr<const SharedWeights> shared,
                       absl::Span<const quant::GridMatrix> linears,
                       at::ScalarType compute_type)
    : GemmaModel(
          std::move(shared),
          [&](int64_t i) { return DequantizeTensor(linears[i]); },
          compute_type) {}

GemmaModel::GemmaModel(std::shared_ptr<const SharedWeights> shared,
                       absl::Span<const at::Tensor> linears,
                       at::ScalarType compute_type)
    : GemmaModel(
          std::move(shared), [&](int64_t i) { return linears[i]; },
          compute_type) {}

GemmaModel::GemmaModel(std::shared_ptr<const SharedWeights> shared,
                       const std::function<at::Tensor(int64_t linear)>& weight,
                       at::ScalarType compute_type)
    : shared_(std::move(shared)),
      compute_type_(compute_type),
      layout_(model::GemmaLinears(shared_->config)),
      norm_layout_(shared_->config) {
  const model::GemmaConfig& config = shared_->config;
  const std::vector<model::LinearSpec> specs = model::GemmaLinears(config);
  places_.resize(specs.size());
  for (int64_t layer = 0; layer < config.layer_count(); ++layer) {
    for (int g = 0; g < kGroupsPerLayer; ++g) {
      const GroupSpan span = layout_.Of(layer, static_cast<LinearGroup>(g));
      std::vector<at::Tensor> members;
      int64_t offset = 0;
      for (int64_t i = span.begin; i < span.end; ++i) {
        members.push_back(weight(i).to(compute_type));
        const int64_t rows = members.back().size(0);
        places_[static_cast<size_t>(i)] = {weights_.size(), offset, rows};
        offset += rows;
      }
      weights_.push_back(members.empty() ? at::Tensor() : at::cat(members, 0));
    }
    attention_.push_back(MakeAttentionSpec(layer));
  }
  experts_.resize(config.experts > 0 ? config.layers.size() : 0);
  for (size_t i = 0; i < specs.size(); ++i) {
    if (layout_.InGroup(static_cast<int64_t>(i))) continue;
    places_[i] = {weights_.size(), 0, specs[i].out};
    if (specs[i].experts > 1) {
      ExpertPlaces& places = experts_[static_cast<size_t>(specs[i].layer)];
      (specs[i].kind == "down_proj" ? places.down : places.gate_up) =
          weights_.size();
    }
    weights_.push_back(
        weight(static_cast<int64_t>(i))
            .to(compute_type, /*non_blocking=*/false, /*copy=*/true));
  }
  head_ = {shared_->head, shared_->head.to(compute_type), config.logit_softcap};
}

AttentionSpec GemmaModel::MakeAttentionSpec(int64_t layer) const {
  const model::GemmaConfig& config = shared_->config;
  const model::GemmaLayer& shape = config.layers[layer];
  const int64_t kv_width = shape.kv_heads * shape.head_dim;
  AttentionSpec spec;
  spec.heads = config.heads;
  spec.kv_heads = shape.kv_heads;
  spec.head_dim = shape.head_dim;
  spec.window = shape.global ? config.context_length : config.sliding_window;
  // Keys, then values, stand behind the queries of the layer that has them.
  spec.k_column = config.heads * shape.head_dim;
  spec.v_column = config.layers[shape.kv_source].value_is_key
                      ? spec.k_column
                      : spec.k_column + kv_width;
  spec.norm_values = config.family == model::GemmaFamily::kGemma4;
  spec.scale = config.attention_scale;
  spec.eps = config.rms_eps;
  spec.q_norm = Norm(layer, LayerNorm::kQuery);
  spec.k_norm = Norm(shape.kv_source, LayerNorm::kKey);
  spec.rope = shape.global ? shared_->rope_global : shared_->rope_local;
  return spec;
}

const at::Tensor& GemmaModel::Norm(int64_t layer, LayerNorm norm) const {
  return shared_->norms[static_cast<size_t>(norm_layout_.Of(layer, norm))];
}

void GemmaModel::SetLinear(int64_t linear, const at::Tensor& weight) {
  this->linear(linear).copy_(weight);
}

at::Tensor GemmaModel::linear(int64_t linear) const {
  const Place& place = places_[static_cast<size_t>(linear)];
  return weights_[place.group].narrow(0, place.offset, place.rows);
}

at::Tensor GemmaModel::Linear(int64_t layer, LinearGroup group,
                              const at::Tensor& input,
                              const ForwardOptions& options) const {
  if (options.observe) options.observe(layer, group, input);
  const at::Tensor x = options.as_served
                           ? FakeQuantize(input, group == LinearGroup::kQkv)
                           : input;
  const int g = static_cast<int>(group);
  if (options.weight_gradients != nullptr) {
    return GridLinear(x, weights_[layer * kGroupsPerLayer + g],
                      layout_.Of(layer, group).begin, options.weight_gradients);
  }
  const LoraAdapter* adapter = options.adapter;
  const LoraGroup* lora =
      adapter == nullptr ? nullptr : adapter->group(layer, g);
  return LoraLinear(x, weights_[layer * kGroupsPerLayer + g], lora,
                    lora == nullptr ? at::Tensor() : DropoutMask(x, options));
}

at::Tensor GemmaModel::AttentionBlock(int64_t layer, const at::Tensor& x,
                                      const AttentionLayout& layout,
                                      const ForwardOptions& options,
                                      LayerStream* stream) const {
  const double eps = config().rms_eps;
  const at::Tensor a =
      RmsNorm(x, Norm(layer, LayerNorm::kAttentionInput), eps, compute_type_);
  const at::Tensor q = Linear(layer, LinearGroup::kQkv, a, options);
  at::Tensor kv;
  if (!config().HasKv(layer)) {
    kv = stream->keys_and_values.at(config().layers[layer].kv_source);
  } else if (config().layers.back().kv_source < config().layer_count() - 1) {
    stream->keys_and_values[layer] = q;
  }
  const at::Tensor heads = Attention(
      q, kv, attention_[static_cast<size_t>(layer)], layout, options.as_served);
  return AddRmsNorm(x, Linear(layer, LinearGroup::kOutput, heads, options),
                    Norm(layer, LayerNorm::kAttentionOutput), eps);
}

at::Tensor GemmaModel::MlpBlock(int64_t layer, const at::Tensor& x,
                                const ForwardOptions& options) const {
  const double eps = config().rms_eps;
  const at::Tensor m =
      RmsNorm(x, Norm(layer, LayerNorm::kMlpInput), eps, compute_type_);
  const at::Tensor activated =
      GeluMul(Linear(layer, LinearGroup::kGateUp, m, options));
  at::Tensor branch = Linear(layer, LinearGroup::kDown, activated, options);
  if (config().experts > 0) {
    branch = AddRmsNorm(Experts(layer, x, options.as_served), branch,
                        Norm(layer, LayerNorm::kDenseOutput), eps);
  }
  return AddRmsNorm(x, branch, Norm(layer, LayerNorm::kMlpOutput), eps);
}

at::Tensor GemmaModel::Experts(int64_t layer, const at::Tensor& x,
                               bool as_served) const {
  const model::GemmaConfig& c = config();
  const ExpertPlaces& places = experts_[static_cast<size_t>(layer)];
  const at::Tensor gate_up =
      weights_[places.gate_up].view({c.experts, 2 * c.expert_ff, c.hidden});
  const at::Tensor down =
      weights_[places.down].view({c.experts, c.hidden, c.expert_ff});
  const at::Tensor router_norm = Norm(layer, LayerNorm::kRouterScale) /
                                 std::sqrt(static_cast<float>(c.hidden));
  const at::Tensor routed = RmsNorm(x, router_norm, c.rms_eps, at::kFloat);
  const at::Tensor logits = at::mm(
      routed, Norm(layer, LayerNorm::kRouter).view({c.experts, c.hidden}).t());
  const auto [shares, chosen] =
      at::topk(at::softmax(logits, 1), c.experts_used, 1);
  const at::Tensor weights =
      shares / shares.sum(1, /*keepdim=*/true) *
      at::index_select(Norm(layer, LayerNorm::kExpertScale), 0,
                       chosen.flatten())
          .view_as(shares);
  at::Tensor input = RmsNorm(x, Norm(layer, LayerNorm::kExpertsInput),
                             c.rms_eps, compute_type_);
  if (as_served) input = FakeQuantize(input, /*int16=*/false);
  at::Tensor sum = at::zeros_like(x, x.options().requires_grad(false));
  for (int64_t expert = 0; expert < c.experts; ++expert) {
    const at::Tensor uses = at::nonzero(chosen == expert);  // [n, 2]
    if (uses.size(0) == 0) continue;
    const at::Tensor rows = uses.select(1, 0).contiguous();
    const at::Tensor weight =
        weights.flatten()
            .index_select(0, rows * c.experts_used + uses.select(1, 1))
            .unsqueeze(1);
    at::Tensor active =
        GeluMul(at::mm(at::index_select(input, 0, rows), gate_up[expert].t()));
    if (as_served) active = FakeQuantize(active, /*int16=*/false);
    const at::Tensor out = at::mm(active, down[expert].t()).to(at::kFloat);
    sum = at::index_add(sum, 0, rows, out * weight);
  }
  return RmsNorm(sum, Norm(layer, LayerNorm::kExpertsOutput), c.rms_eps,
                 at::kFloat);
}

at::Tensor GemmaModel::PerLayerBlock(int64_t layer, const at::Tensor& x,
                                     const at::Tensor& input,
                                     const ForwardOptions& options) const {
  const at::Tensor gate =
      Linear(layer, LinearGroup::kInputGate, x.to(compute_type_), options);
  const at::Tensor mixed = GeluMul(at::cat({gate, input.to(compute_type_)}, 1));
  return AddRmsNorm(x, Linear(layer, LinearGroup::kInputOut, mixed, options),
                    Norm(layer, LayerNorm::kInputOutput), config().rms_eps);
}

void GemmaModel::ForwardLayer(int64_t layer, const AttentionLayout& layout,
                              const ForwardOptions& options,
                              LayerStream* stream) const {
  at::Tensor x = AttentionBlock(layer, stream->x, layout, options, stream);
  x = MlpBlock(layer, x, options);
  if (stream->per_layer.defined()) {
    x = PerLayerBlock(layer, x, stream->per_layer[layer], options);
  }
  if (config().family == model::GemmaFamily::kGemma4) {
    x = x * Norm(layer, LayerNorm::kOutputScale);
  }
  stream->x = x;
}

at::Tensor GemmaModel::PerLayerInputs(const at::Tensor& x,
                                      const at::Tensor& ids,
                                      bool as_served) const {
  const model::GemmaConfig& c = config();
  const int64_t layers = c.layer_count(), width = c.per_layer_width;
  const at::Tensor input = as_served ? FakeQuantize(x, /*int16=*/true) : x;
  const at::Tensor projected =
      at::mm(input, shared_->per_layer_projection.t())
          .mul_(1.0f / std::sqrt(static_cast<float>(c.hidden)));
  const at::Tensor normed = RmsNorm(
      projected.view({-1, width}),
      shared_->norms[static_cast<size_t>(norm_layout_.per_layer_input())],
      c.rms_eps, at::kFloat);
  const at::Tensor looked_up =
      shared_->per_layer_rows(ids).mul_(std::sqrt(static_cast<float>(width)));
  return (normed.view({-1, layers, width}) +
          looked_up.view({-1, layers, width}))
      .mul_(std::sqrt(0.5f))
      .transpose(0, 1)
      .contiguous();
}

LayerStream GemmaModel::Start(const PackedSequence& sequence,
                              bool as_served) const {
  const c10::NoGradGuard no_grad;
  at::Tensor ids = at::from_blob(const_cast<int32_t*>(sequence.tokens.data()),
                                 {sequence.size()}, at::kInt);
  LayerStream stream;
  stream.x = at::index_select(shared_->embedding, 0, ids)
                 .mul_(std::sqrt(static_cast<float>(config().hidden)));
  if (config().per_layer_width > 0) {
    stream.per_layer = PerLayerInputs(stream.x, ids, as_served);
  }
  return stream;
}

at::Tensor GemmaModel::Forward(const PackedSequence& sequence,
                               const AttentionLayout& layout,
                               const ForwardOptions& options) const {
  LayerStream stream = Start(sequence, options.as_served);
  // The weights are frozen, so the graph has to start at the input.
  if (c10::GradMode::is_enabled() &&
      (options.adapter != nullptr || options.weight_gradients != nullptr)) {
    stream.x.requires_grad_(true);
  }
  for (int64_t layer = 0; layer < config().layer_count(); ++layer) {
    ForwardLayer(layer, layout, options, &stream);
  }
  return stream.x;
}

at::Tensor GemmaModel::FinalHidden(const at::Tensor& x,
                                   absl::Span<const int64_t> rows,
                                   bool as_served) const {
  const at::Tensor index =
      at::from_blob(const_cast<int64_t*>(rows.data()),
                    {static_cast<int64_t>(rows.size())}, at::kLong)
          .clone();
  const at::Tensor hidden =
      RmsNorm(at::index_select(x, 0, index), shared_->norms.back(),
              config().rms_eps, at::kFloat);
  return as_served ? FakeQuantize(hidden, /*int16=*/true) : hidden;
}

Labels LabelsOf(const PackedSequence& sequence) {
  Labels labels;
  for (int64_t i = 0; i < sequence.size(); ++i) {
    const int32_t target = sequence.targets[static_cast<size_t>(i)];
    if (target == kNoTarget) continue;
    labels.rows.push_back(i);
    labels.targets.push_back(target);
  }
  return labels;
}

}  // namespace onegrid::finetuner
