#include "services/inference/gemma_weights.h"

#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/reference/expert_choice.h"
#include "services/common/error_info.h"
#include "services/model/tensor_names.h"

namespace onegrid::inference {
namespace {

using model::GgufFile;
using quant::GgmlType;
using Storage = cpu::PackedLinear::Storage;

std::string TypeName(GgmlType type) {
  const auto traits = quant::TraitsOf(type);
  return traits.ok() ? traits->name
                     : absl::StrCat("type ", static_cast<uint32_t>(type));
}

absl::Status Corrupt(const GgufFile& file, const std::string& name,
                     absl::string_view what) {
  return common::MakeError(
      absl::StatusCode::kDataLoss, "CORRUPT_FILE",
      absl::StrCat(file.path(), ": tensor ", name, " ", what),
      {{"tensor", name}});
}

absl::Status UnsupportedType(const GgufFile& file,
                             const GgufFile::Tensor& tensor,
                             const std::string& expected) {
  return common::MakeError(
      absl::StatusCode::kUnimplemented, "UNSUPPORTED_TENSOR_TYPE",
      absl::StrCat(file.path(), ": tensor ", tensor.name, " has type ",
                   TypeName(tensor.type), ", expected ", expected,
                   "; import the model onto a grid first"),
      {{"tensor", tensor.name},
       {"found", TypeName(tensor.type)},
       {"expected", expected}});
}

absl::StatusOr<const GgufFile::Tensor*> Find(const GgufFile& file,
                                             const std::string& name) {
  const GgufFile::Tensor* tensor = file.Find(name);
  if (tensor == nullptr) return Corrupt(file, name, "is missing");
  return tensor;
}

// Rows [part * rows / parts, (part + 1) * rows / parts) of the tensor.
absl::StatusOr<cpu::PackedLinear> LoadPart(const GgufFile& file,
                                           const GgufFile::Tensor& tensor,
                                           int64_t part, int64_t parts,
                                           kernels::ThreadPool& pool,
                                           Storage storage = Storage::kWhole) {
  const int64_t bytes = static_cast<int64_t>(tensor.data.size()) / parts;
  auto packed = cpu::PackedLinear::FromBlocks(
      tensor.type, tensor.data.subspan(part * bytes, bytes),
      tensor.rows() / parts, tensor.cols(), pool,
      [&](absl::Span<const uint8_t> done) { file.DropPages(done); }, storage);
  if (absl::IsUnimplemented(packed.status())) {
    return UnsupportedType(file, tensor, "Q4_0, Q2_0, Q8_0 or BF16");
  }
  if (!packed.ok()) {
    return Corrupt(file, tensor.name, packed.status().message());
  }
  return packed;
}

absl::StatusOr<cpu::PackedLinear> LoadMatrix(
    const GgufFile& file, const std::string& name, kernels::ThreadPool& pool,
    Storage storage = Storage::kWhole) {
  ASSIGN_OR_RETURN(const GgufFile::Tensor* tensor, Find(file, name));
  return LoadPart(file, *tensor, 0, 1, pool, storage);
}

absl::StatusOr<std::vector<cpu::PackedLinear>> LoadExperts(
    const GgufFile& file, const std::string& name, int64_t experts,
    kernels::ThreadPool& pool) {
  ASSIGN_OR_RETURN(const GgufFile::Tensor* tensor, Find(file, name));
  std::vector<cpu::PackedLinear> matrices;
  for (int64_t i = 0; i < experts; ++i) {
    ASSIGN_OR_RETURN(auto matrix, LoadPart(file, *tensor, i, experts, pool));
    matrices.push_back(std::move(matrix));
  }
  return matrices;
}

absl::StatusOr<std::vector<float>> LoadNorm(const GgufFile& file,
                                            const std::string& name) {
  ASSIGN_OR_RETURN(const GgufFile::Tensor* tensor, Find(file, name));
  if (tensor->type != GgmlType::kF32) {
    return UnsupportedType(file, *tensor, "F32");
  }
  std::vector<float> values(tensor->data.size() / sizeof(float));
  std::memcpy(values.data(), tensor->data.data(),
              values.size() * sizeof(float));
  for (float value : values) {
    if (!std::isfinite(value)) {
      return Corrupt(file, name, "has a value that is not finite");
    }
  }
  return values;
}

// The tensors of one layer.
class LayerLoader {
 public:
  LayerLoader(const GgufFile& file, const model::GemmaConfig& config,
              int64_t layer, kernels::ThreadPool& pool)
      : file_(file), config_(config), layer_(layer), pool_(pool) {}

  absl::StatusOr<LayerWeights> Load() const {
    ASSIGN_OR_RETURN(auto attn_norm, Norm("attn_norm"));
    ASSIGN_OR_RETURN(auto q, Matrix("attn_q"));
    ASSIGN_OR_RETURN(auto q_norm, Norm("attn_q_norm"));
    ASSIGN_OR_RETURN(auto o, Matrix("attn_output"));
    ASSIGN_OR_RETURN(auto post_attn_norm, Norm("post_attention_norm"));
    ASSIGN_OR_RETURN(auto ffn_norm, Norm("ffn_norm"));
    ASSIGN_OR_RETURN(auto gate, Matrix("ffn_gate"));
    ASSIGN_OR_RETURN(auto up, Matrix("ffn_up"));
    ASSIGN_OR_RETURN(auto down, Matrix("ffn_down"));
    ASSIGN_OR_RETURN(auto post_ffw_norm, Norm("post_ffw_norm"));
    LayerWeights weights{.attn_norm = std::move(attn_norm),
                         .q = std::move(q),
                         .k = {},
                         .v = {},
                         .q_norm = std::move(q_norm),
                         .k_norm = {},
                         .o = std::move(o),
                         .post_attn_norm = std::move(post_attn_norm),
                         .ffn_norm = std::move(ffn_norm),
                         .gate = std::move(gate),
                         .up = std::move(up),
                         .down = std::move(down),
                         .post_ffw_norm = std::move(post_ffw_norm),
                         .input = {},
                         .experts = nullptr};
    RETURN_IF_ERROR(LoadKv(weights));
    if (config_.family == model::GemmaFamily::kGemma4) {
      RETURN_IF_ERROR(LoadGemma4(weights));
    }
    return weights;
  }

 private:
  std::string Name(const char* part, const char* suffix = "weight") const {
    return absl::StrCat("blk.", layer_, ".", part, ".", suffix);
  }
  absl::StatusOr<cpu::PackedLinear> Matrix(const char* part) const {
    return LoadMatrix(file_, Name(part), pool_);
  }
  absl::StatusOr<std::vector<float>> Norm(const char* part,
                                          const char* suffix = "weight") const {
    return LoadNorm(file_, Name(part, suffix));
  }

  absl::Status LoadKv(LayerWeights& weights) const {
    if (!config_.HasKv(layer_)) return absl::OkStatus();
    ASSIGN_OR_RETURN(weights.k, Matrix("attn_k"));
    ASSIGN_OR_RETURN(weights.k_norm, Norm("attn_k_norm"));
    if (config_.layers[layer_].value_is_key) return absl::OkStatus();
    ASSIGN_OR_RETURN(weights.v, Matrix("attn_v"));
    return absl::OkStatus();
  }

  absl::Status LoadGemma4(LayerWeights& weights) const {
    ASSIGN_OR_RETURN(const auto output_scale, Norm("layer_output_scale"));
    weights.output_scale = output_scale[0];
    if (config_.per_layer_width > 0) {
      ASSIGN_OR_RETURN(auto gate, Matrix("inp_gate"));
      ASSIGN_OR_RETURN(auto out, Matrix("proj"));
      ASSIGN_OR_RETURN(auto post_norm, Norm("post_norm"));
      weights.input = PerLayerInputWeights{std::move(gate), std::move(out),
                                           std::move(post_norm)};
    }
    if (config_.experts == 0) return absl::OkStatus();
    auto experts = std::make_unique<ExpertWeights>();
    ASSIGN_OR_RETURN(experts->router, Norm("ffn_gate_inp"));
    ASSIGN_OR_RETURN(const auto scale, Norm("ffn_gate_inp", "scale"));
    experts->router_norm = reference::RouterNorm(scale);
    ASSIGN_OR_RETURN(experts->expert_scale, Norm("ffn_down_exps", "scale"));
    ASSIGN_OR_RETURN(experts->mlp_post_norm, Norm("post_ffw_norm_1"));
    ASSIGN_OR_RETURN(experts->norm, Norm("pre_ffw_norm_2"));
    ASSIGN_OR_RETURN(experts->post_norm, Norm("post_ffw_norm_2"));
    ASSIGN_OR_RETURN(
        experts->gate_up,
        LoadExperts(file_, Name("ffn_gate_up_exps"), config_.experts, pool_));
    ASSIGN_OR_RETURN(experts->down, LoadExperts(file_, Name("ffn_down_exps"),
                                                config_.experts, pool_));
    weights.experts = std::move(experts);
    return absl::OkStatus();
  }

  const GgufFile& file_;
  const model::GemmaConfig& config_;
  const int64_t layer_;
  kernels::ThreadPool& pool_;
};

absl::StatusOr<std::optional<PerLayerTable>> LoadPerLayerTable(
    const GgufFile& file, const model::GemmaConfig& config,
    kernels::ThreadPool& pool) {
  if (config.per_layer_width == 0) return std::nullopt;
  ASSIGN_OR_RETURN(const GgufFile::Tensor* table,
                   Find(file, model::kGgufPerLayerEmbedding));
  ASSIGN_OR_RETURN(auto projection,
                   LoadMatrix(file, model::kGgufPerLayerProjection, pool));
  ASSIGN_OR_RETURN(auto norm, LoadNorm(file, "per_layer_proj_norm.weight"));
  return PerLayerTable{table->type, table->data, std::move(projection),
                       std::move(norm)};
}

// Calls use(matrix, share) for each matrix of a layer; share: the part of it
// that one token reads.
template <typename Use>
void ForEachMatrix(const LayerWeights& layer, double expert_share, Use use) {
  for (const cpu::PackedLinear* linear :
       {&layer.q, &layer.o, &layer.gate, &layer.up, &layer.down}) {
    use(*linear, 1.0);
  }
  if (layer.k) use(*layer.k, 1.0);
  if (layer.v) use(*layer.v, 1.0);
  if (layer.input) {
    use(layer.input->gate, 1.0);
    use(layer.input->out, 1.0);
  }
  if (layer.experts == nullptr) return;
  for (const auto* matrices : {&layer.experts->gate_up, &layer.experts->down}) {
    for (const cpu::PackedLinear& linear : *matrices) use(linear, expert_share);
  }
}

// The sum of get(matrix) over the body, of the experts the share given.
template <typename Get>
int64_t SumOfBody(const GemmaWeights& weights, double expert_share, Get get) {
  double sum = 0;
  for (const LayerWeights& layer : weights.layers) {
    ForEachMatrix(layer, expert_share,
                  [&](const cpu::PackedLinear& linear, double share) {
                    sum += share * static_cast<double>(get(linear));
                  });
  }
  if (weights.per_layer) {
    sum += static_cast<double>(get(weights.per_layer->projection));
  }
  return static_cast<int64_t>(sum);
}

int64_t BytesOf(const cpu::PackedLinear& linear) { return linear.bytes(); }

double ExpertShare(const model::GemmaConfig& config) {
  return config.experts == 0 ? 0
                             : static_cast<double>(config.experts_used) /
                                   static_cast<double>(config.experts);
}

}  // namespace

int64_t GemmaWeights::bytes() const {
  return embedding.bytes() + (own_head ? own_head->bytes() : 0) +
         SumOfBody(*this, 1, BytesOf);
}

int64_t GemmaWeights::body_bytes() const {
  return SumOfBody(*this, ExpertShare(config), BytesOf);
}

int64_t GemmaWeights::body_elements() const {
  return SumOfBody(
      *this, ExpertShare(config),
      [](const cpu::PackedLinear& linear) { return linear.elements(); });
}

namespace {

// All but a head of its own.
absl::StatusOr<GemmaWeights> LoadWithoutHead(const GgufFile& file,
                                             kernels::ThreadPool& pool,
                                             Storage head_storage) {
  ASSIGN_OR_RETURN(const model::GemmaConfig config,
                   model::ConfigFromGguf(file));
  ASSIGN_OR_RETURN(
      auto embedding,
      LoadMatrix(file, model::kGgufEmbedding, pool,
                 config.tied_head ? head_storage : Storage::kWhole));
  std::vector<LayerWeights> layers;
  for (int64_t i = 0; i < config.layer_count(); ++i) {
    ASSIGN_OR_RETURN(LayerWeights layer,
                     LayerLoader(file, config, i, pool).Load());
    layers.push_back(std::move(layer));
  }
  ASSIGN_OR_RETURN(auto output_norm, LoadNorm(file, "output_norm.weight"));
  ASSIGN_OR_RETURN(auto per_layer, LoadPerLayerTable(file, config, pool));
  std::map<GgmlType, int> linear_types;
  for (const model::LinearSpec& spec : model::GemmaLinears(config)) {
    if (spec.gguf_name == model::kGgufHead) continue;
    ++linear_types[file.Find(spec.gguf_name)->type];
  }
  const GgmlType embedding_type = file.Find(model::kGgufEmbedding)->type;
  return GemmaWeights{config,
                      std::move(embedding),
                      /*own_head=*/{},
                      std::move(layers),
                      std::move(output_norm),
                      std::move(per_layer),
                      std::move(linear_types),
                      embedding_type,
                      /*head_type=*/embedding_type};
}

}  // namespace

absl::StatusOr<GemmaWeights> LoadGemmaWeights(const GgufFile& file,
                                              kernels::ThreadPool& pool,
                                              Storage head_storage) {
  ASSIGN_OR_RETURN(GemmaWeights weights,
                   LoadWithoutHead(file, pool, head_storage));
  if (weights.config.tied_head) return weights;
  ASSIGN_OR_RETURN(weights.own_head,
                   LoadMatrix(file, model::kGgufHead, pool, head_storage));
  weights.head_type = file.Find(model::kGgufHead)->type;
  return weights;
}

}  // namespace onegrid::inference
