#include "services/inference/gemma3_weights.h"

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

absl::Status NotFinite(const GgufFile& file, const std::string& name,
                       const char* what) {
  return common::MakeError(absl::StatusCode::kDataLoss, "CORRUPT_FILE",
                           absl::StrCat(file.path(), ": tensor ", name,
                                        " has a ", what, " that is not finite"),
                           {{"tensor", name}});
}

absl::StatusOr<const GgufFile::Tensor*> FindOfType(const GgufFile& file,
                                                   const std::string& name,
                                                   GgmlType expected) {
  const GgufFile::Tensor* tensor = file.Find(name);
  if (tensor == nullptr) {
    return common::MakeError(
        absl::StatusCode::kDataLoss, "CORRUPT_FILE",
        absl::StrCat(file.path(), ": tensor ", name, " is missing"),
        {{"tensor", name}});
  }
  if (tensor->type != expected) {
    return common::MakeError(
        absl::StatusCode::kUnimplemented, "UNSUPPORTED_TENSOR_TYPE",
        absl::StrCat(file.path(), ": tensor ", name, " has type ",
                     TypeName(tensor->type), ", expected ", TypeName(expected),
                     "; import the model onto the int4_g32 grid first"),
        {{"tensor", name},
         {"found", TypeName(tensor->type)},
         {"expected", TypeName(expected)}});
  }
  return tensor;
}

// Every block of Q4_0 and Q8_0 starts with its f16 scale.
bool ScalesAreFinite(const GgufFile::Tensor& tensor, int64_t block_bytes) {
  for (size_t at = 0; at + 2 <= tensor.data.size(); at += block_bytes) {
    uint16_t scale;
    std::memcpy(&scale, tensor.data.data() + at, sizeof(scale));
    if ((scale & 0x7C00) == 0x7C00) return false;
  }
  return true;
}

absl::StatusOr<cpu::PackedInt4Linear> LoadLinear(const GgufFile& file,
                                                 const std::string& name,
                                                 kernels::ThreadPool& pool) {
  ASSIGN_OR_RETURN(const GgufFile::Tensor* tensor,
                   FindOfType(file, name, GgmlType::kQ4_0));
  if (!ScalesAreFinite(*tensor, 18)) return NotFinite(file, name, "scale");
  return cpu::PackedInt4Linear::FromQ4_0(tensor->data, tensor->rows(),
                                         tensor->cols(), pool);
}

absl::StatusOr<cpu::PackedInt8Linear> LoadEmbedding(const GgufFile& file,
                                                    kernels::ThreadPool& pool) {
  if (file.Find("output.weight") != nullptr) {
    return common::MakeError(
        absl::StatusCode::kUnimplemented, "UNSUPPORTED_TENSOR_TYPE",
        absl::StrCat(file.path(),
                     ": output.weight is there, but Gemma 3's head is its "
                     "token embedding"),
        {{"tensor", "output.weight"}});
  }
  ASSIGN_OR_RETURN(const GgufFile::Tensor* tensor,
                   FindOfType(file, model::kGgufEmbedding, GgmlType::kQ8_0));
  if (!ScalesAreFinite(*tensor, 34)) {
    return NotFinite(file, model::kGgufEmbedding, "scale");
  }
  return cpu::PackedInt8Linear::FromQ8_0(tensor->data, tensor->rows(),
                                         tensor->cols(), pool);
}

absl::StatusOr<std::vector<float>> LoadNorm(const GgufFile& file,
                                            const std::string& name) {
  ASSIGN_OR_RETURN(const GgufFile::Tensor* tensor,
                   FindOfType(file, name, GgmlType::kF32));
  std::vector<float> values(tensor->data.size() / sizeof(float));
  std::memcpy(values.data(), tensor->data.data(),
              values.size() * sizeof(float));
  for (float value : values) {
    if (!std::isfinite(value)) return NotFinite(file, name, "value");
  }
  return values;
}

absl::StatusOr<LayerWeights> LoadLayer(const GgufFile& file, int64_t layer,
                                       kernels::ThreadPool& pool) {
  const auto name = [layer](const char* part) {
    return absl::StrCat("blk.", layer, ".", part, ".weight");
  };
  ASSIGN_OR_RETURN(auto attn_norm, LoadNorm(file, name("attn_norm")));
  ASSIGN_OR_RETURN(auto q, LoadLinear(file, name("attn_q"), pool));
  ASSIGN_OR_RETURN(auto k, LoadLinear(file, name("attn_k"), pool));
  ASSIGN_OR_RETURN(auto v, LoadLinear(file, name("attn_v"), pool));
  ASSIGN_OR_RETURN(auto q_norm, LoadNorm(file, name("attn_q_norm")));
  ASSIGN_OR_RETURN(auto k_norm, LoadNorm(file, name("attn_k_norm")));
  ASSIGN_OR_RETURN(auto o, LoadLinear(file, name("attn_output"), pool));
  ASSIGN_OR_RETURN(auto post_attn_norm,
                   LoadNorm(file, name("post_attention_norm")));
  ASSIGN_OR_RETURN(auto ffn_norm, LoadNorm(file, name("ffn_norm")));
  ASSIGN_OR_RETURN(auto gate, LoadLinear(file, name("ffn_gate"), pool));
  ASSIGN_OR_RETURN(auto up, LoadLinear(file, name("ffn_up"), pool));
  ASSIGN_OR_RETURN(auto down, LoadLinear(file, name("ffn_down"), pool));
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

int64_t Gemma3Weights::bytes() const {
  int64_t sum = embedding.bytes();
  for (const LayerWeights& layer : layers) {
    sum += layer.q.bytes() + layer.k.bytes() + layer.v.bytes() +
           layer.o.bytes() + layer.gate.bytes() + layer.up.bytes() +
           layer.down.bytes();
  }
  return sum;
}

absl::StatusOr<Gemma3Weights> LoadGemma3Weights(const GgufFile& file,
                                                kernels::ThreadPool& pool) {
  ASSIGN_OR_RETURN(const model::Gemma3Config config,
                   model::ConfigFromGguf(file));
  ASSIGN_OR_RETURN(auto embedding, LoadEmbedding(file, pool));
  std::vector<LayerWeights> layers;
  for (int64_t i = 0; i < config.layers; ++i) {
    ASSIGN_OR_RETURN(LayerWeights layer, LoadLayer(file, i, pool));
    layers.push_back(std::move(layer));
  }
  ASSIGN_OR_RETURN(auto output_norm, LoadNorm(file, "output_norm.weight"));
  return Gemma3Weights{config, std::move(embedding), std::move(layers),
                       std::move(output_norm)};
}

}  // namespace onegrid::inference
