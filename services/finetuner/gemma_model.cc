#include "services/finetuner/gemma_model.h"

#include <c10/core/GradMode.h>

#include <cmath>
#include <utility>

#include "services/finetuner/lora_linear.h"
#include "services/finetuner/transformer_ops.h"

namespace onegrid::finetuner {
namespace {

// Positions of a layer's norms in GemmaNorms.
enum LayerNorm {
  kAttentionInput,
  kQuery,
  kKey,
  kAttentionOutput,
  kMlpInput,
  kMlpOutput,
  kNormsPerLayer,
};

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
std::shared_ptr<const SharedWeights> MakeShared(const Checkpoint& checkpoint,
                                                const at::Tensor& embedding,
                                                int64_t max_positions) {
  auto shared = std::make_shared<SharedWeights>();
  const model::GemmaConfig& config = checkpoint.config;
  shared->config = config;
  shared->embedding = embedding;
  for (const std::vector<float>& norm : checkpoint.norms) {
    shared->norms.push_back(at::from_blob(const_cast<float*>(norm.data()),
                                          {static_cast<int64_t>(norm.size())},
                                          at::kFloat)
                                .clone());
  }
  shared->rope_local = MakeRopeTable(max_positions, config.layers[0].head_dim,
                                     config.rope_theta_local, 1.0);
  shared->rope_global =
      MakeRopeTable(max_positions, config.layers[0].head_dim,
                    config.rope_theta_global, config.rope_scaling_factor);
  return shared;
}

}  // namespace

std::shared_ptr<const SharedWeights> MakeSharedWeights(
    const GridCheckpoint& checkpoint, int64_t max_positions) {
  return MakeShared(checkpoint, DequantizeTensor(checkpoint.embedding),
                    max_positions);
}

std::shared_ptr<const SharedWeights> MakeSharedWeights(
    const FloatCheckpoint& checkpoint, int64_t max_positions) {
  return MakeShared(checkpoint, checkpoint.embedding, max_positions);
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
    : shared_(std::move(shared)), compute_type_(compute_type) {
  const model::GemmaConfig& config = shared_->config;
  for (int64_t layer = 0; layer < config.layer_count(); ++layer) {
    for (int g = 0; g < kGroupsPerLayer; ++g) {
      const GroupSpan span = LinearsOf(static_cast<LinearGroup>(g));
      std::vector<at::Tensor> members;
      int64_t offset = 0;
      for (int i = span.begin; i < span.end; ++i) {
        members.push_back(
            weight(layer * kLinearsPerLayer + i).to(compute_type));
        const int64_t rows = members.back().size(0);
        places_.push_back({weights_.size(), offset, rows});
        offset += rows;
      }
      weights_.push_back(at::cat(members, 0));
    }
    const bool global = config.IsGlobalLayer(layer);
    AttentionSpec spec;
    spec.heads = config.heads;
    spec.kv_heads = config.layers[layer].kv_heads;
    spec.head_dim = config.layers[layer].head_dim;
    spec.window = global ? config.context_length : config.sliding_window;
    spec.scale = config.attention_scale;
    spec.eps = config.rms_eps;
    spec.q_norm = Norm(layer, kQuery);
    spec.k_norm = Norm(layer, kKey);
    spec.rope = global ? shared_->rope_global : shared_->rope_local;
    attention_.push_back(std::move(spec));
  }
  head_ = {shared_->embedding, shared_->embedding.to(compute_type)};
}

const at::Tensor& GemmaModel::Norm(int64_t layer, int index) const {
  return shared_->norms[static_cast<size_t>(layer * kNormsPerLayer + index)];
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
    return GridLinear(x, weights_[layer * kGroupsPerLayer + g], layer, group,
                      options.weight_gradients);
  }
  const LoraAdapter* adapter = options.adapter;
  const LoraGroup* lora =
      adapter == nullptr ? nullptr : adapter->group(layer, g);
  return LoraLinear(x, weights_[layer * kGroupsPerLayer + g], lora,
                    lora == nullptr ? at::Tensor() : DropoutMask(x, options));
}

at::Tensor GemmaModel::ForwardLayer(int64_t layer, const at::Tensor& x,
                                    const AttentionLayout& layout,
                                    const ForwardOptions& options) const {
  const double eps = config().rms_eps;
  const at::Tensor a =
      RmsNorm(x, Norm(layer, kAttentionInput), eps, compute_type_);
  const at::Tensor heads = Attention(
      Linear(layer, LinearGroup::kQkv, a, options),
      attention_[static_cast<size_t>(layer)], layout, options.as_served);
  const at::Tensor after_attention =
      AddRmsNorm(x, Linear(layer, LinearGroup::kOutput, heads, options),
                 Norm(layer, kAttentionOutput), eps);
  const at::Tensor m =
      RmsNorm(after_attention, Norm(layer, kMlpInput), eps, compute_type_);
  const at::Tensor activated =
      GeluMul(Linear(layer, LinearGroup::kGateUp, m, options));
  return AddRmsNorm(after_attention,
                    Linear(layer, LinearGroup::kDown, activated, options),
                    Norm(layer, kMlpOutput), eps);
}

at::Tensor GemmaModel::Embed(const PackedSequence& sequence) const {
  at::Tensor ids = at::from_blob(const_cast<int32_t*>(sequence.tokens.data()),
                                 {sequence.size()}, at::kInt);
  return at::index_select(shared_->embedding, 0, ids)
      .mul_(std::sqrt(static_cast<float>(config().hidden)));
}

at::Tensor GemmaModel::Forward(const PackedSequence& sequence,
                               const AttentionLayout& layout,
                               const ForwardOptions& options) const {
  at::Tensor x = Embed(sequence);
  // The weights are frozen, so the graph has to start at the input.
  if (c10::GradMode::is_enabled() &&
      (options.adapter != nullptr || options.weight_gradients != nullptr)) {
    x.requires_grad_(true);
  }
  for (int64_t layer = 0; layer < config().layer_count(); ++layer) {
    x = ForwardLayer(layer, x, layout, options);
  }
  return x;
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
