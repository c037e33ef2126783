#include "services/inference/gemma_weights.h"

#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ggml_types.h"
#include "services/common/error_info.h"
#include "services/model/tensor_names.h"

namespace onegrid::inference {
namespace {

using model::GgufFile;
using quant::GgmlType;

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

absl::StatusOr<cpu::PackedLinear> LoadMatrix(const GgufFile& file,
                                             const std::string& name,
                                             kernels::ThreadPool& pool) {
  ASSIGN_OR_RETURN(const GgufFile::Tensor* tensor, Find(file, name));
  auto packed = cpu::PackedLinear::FromBlocks(
      tensor->type, tensor->data, tensor->rows(), tensor->cols(), pool,
      [&](absl::Span<const uint8_t> part) { file.DropPages(part); });
  if (absl::IsUnimplemented(packed.status())) {
    return UnsupportedType(file, *tensor, "Q4_0, Q2_0, Q8_0 or BF16");
  }
  if (!packed.ok()) return Corrupt(file, name, packed.status().message());
  return packed;
}

absl::StatusOr<cpu::PackedLinear> LoadEmbedding(const GgufFile& file,
                                                kernels::ThreadPool& pool) {
  if (file.Find("output.weight") != nullptr) {
    return common::MakeError(
        absl::StatusCode::kUnimplemented, "UNSUPPORTED_TENSOR_TYPE",
        absl::StrCat(file.path(),
                     ": output.weight is there, but Gemma 3's head is its "
                     "token embedding"),
        {{"tensor", "output.weight"}});
  }
  return LoadMatrix(file, model::kGgufEmbedding, pool);
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

absl::StatusOr<LayerWeights> LoadLayer(const GgufFile& file, int64_t layer,
                                       kernels::ThreadPool& pool) {
  const auto name = [layer](const char* part) {
    return absl::StrCat("blk.", layer, ".", part, ".weight");
  };
  const auto linear = [&](const char* part) {
    return LoadMatrix(file, name(part), pool);
  };
  ASSIGN_OR_RETURN(auto attn_norm, LoadNorm(file, name("attn_norm")));
  ASSIGN_OR_RETURN(auto q, linear("attn_q"));
  ASSIGN_OR_RETURN(auto k, linear("attn_k"));
  ASSIGN_OR_RETURN(auto v, linear("attn_v"));
  ASSIGN_OR_RETURN(auto q_norm, LoadNorm(file, name("attn_q_norm")));
  ASSIGN_OR_RETURN(auto k_norm, LoadNorm(file, name("attn_k_norm")));
  ASSIGN_OR_RETURN(auto o, linear("attn_output"));
  ASSIGN_OR_RETURN(auto post_attn_norm,
                   LoadNorm(file, name("post_attention_norm")));
  ASSIGN_OR_RETURN(auto ffn_norm, LoadNorm(file, name("ffn_norm")));
  ASSIGN_OR_RETURN(auto gate, linear("ffn_gate"));
  ASSIGN_OR_RETURN(auto up, linear("ffn_up"));
  ASSIGN_OR_RETURN(auto down, linear("ffn_down"));
  ASSIGN_OR_RETURN(auto post_ffw_norm, LoadNorm(file, name("post_ffw_norm")));
  return LayerWeights{std::move(attn_norm),
                      std::move(q),
                      std::move(k),
                      std::move(v),
                      std::move(q_norm),
                      std::move(k_norm),
                      std::move(o),
                      std::move(post_attn_norm),
                      std::move(ffn_norm),
                      std::move(gate),
                      std::move(up),
                      std::move(down),
                      std::move(post_ffw_norm)};
}

}  // namespace

int64_t GemmaWeights::bytes() const {
  int64_t sum = embedding.bytes();
  for (const LayerWeights& layer : layers) {
    for (const cpu::PackedLinear* linear :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up,
          &layer.down}) {
      sum += linear->bytes();
    }
  }
  return sum;
}

absl::StatusOr<GemmaWeights> LoadGemmaWeights(const GgufFile& file,
                                              kernels::ThreadPool& pool) {
  ASSIGN_OR_RETURN(const model::GemmaConfig config,
                   model::ConfigFromGguf(file));
  ASSIGN_OR_RETURN(auto embedding, LoadEmbedding(file, pool));
  std::vector<LayerWeights> layers;
  for (int64_t i = 0; i < config.layers; ++i) {
    ASSIGN_OR_RETURN(LayerWeights layer, LoadLayer(file, i, pool));
    layers.push_back(std::move(layer));
  }
  ASSIGN_OR_RETURN(auto output_norm, LoadNorm(file, "output_norm.weight"));
  std::map<GgmlType, int> linear_types;
  for (const model::LinearSpec& spec : model::GemmaLinears(config)) {
    ++linear_types[file.Find(spec.gguf_name)->type];
  }
  return GemmaWeights{config,
                      std::move(embedding),
                      std::move(layers),
                      std::move(output_norm),
                      std::move(linear_types),
                      file.Find(model::kGgufEmbedding)->type};
}

}  // namespace onegrid::inference
