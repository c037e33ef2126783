#include "services/inference/tiny_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/base/float_types.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"
#include "services/model/gguf_writer.h"
#include "services/model/hf_model_config.h"
#include "services/model/tensor_names.h"

namespace onegrid::inference {
namespace {

constexpr int64_t kLayers = 4;

class Builder {
 public:
  explicit Builder(const TinyModelOptions& options)
      : options_(options),
        config_(TinyConfig(options.structure)),
        random_(options.seed) {
    config_.tied_head = !options.own_head;
  }

  absl::Status Matrix(const std::string& name, quant::GgmlType type,
                      int64_t rows, int64_t cols,
                      const std::vector<int64_t>& dims, float deviation) {
    const std::vector<float> w = Random(rows * cols, deviation);
    const auto found = options_.types.find(name);
    if (found != options_.types.end()) type = found->second;
    if (type == quant::GgmlType::kF32) {
      return writer_.AddTensor(name, type, dims, Bytes(w));
    }
    if (type == quant::GgmlType::kBF16) {
      std::vector<uint16_t> halves;
      for (const float value : w) halves.push_back(kernels::FloatToBf16(value));
      return writer_.AddTensor(name, type, dims, Bytes(halves));
    }
    ASSIGN_OR_RETURN(const quant::Grid* grid, quant::GridOfBlocks(type));
    ASSIGN_OR_RETURN(const quant::GridMatrix matrix,
                     quant::EncodeMatrix(w, rows, cols, *grid));
    ASSIGN_OR_RETURN(std::vector<uint8_t> blocks, quant::PackBlocks(matrix));
    return writer_.AddTensor(name, type, dims, std::move(blocks));
  }

  absl::Status Linear(const model::LinearSpec& spec) {
    return Matrix(
        spec.gguf_name,
        spec.layer < 0 ? quant::GgmlType::kQ8_0 : quant::GgmlType::kQ4_0,
        spec.out, spec.in, spec.GgufDims(),
        1.5f / std::sqrt(static_cast<float>(spec.in)));
  }

  absl::Status Norm(const model::NormSpec& spec) {
    std::vector<float> w =
        Random(spec.size * std::max<int64_t>(1, spec.rows), 0.2f);
    if (spec.rows == 0) {
      for (float& value : w) value += 1;
    }
    if (spec.gguf_name == model::kGgufRopeFactors) {
      w = model::RopeFactors(config_);
    }
    return writer_.AddTensor(spec.gguf_name, quant::GgmlType::kF32,
                             spec.GgufDims(), Bytes(w));
  }

  absl::Status Tensors() {
    for (const model::TableSpec& spec : model::GemmaTables(config_)) {
      RETURN_IF_ERROR(Matrix(spec.gguf_name, quant::GgmlType::kQ8_0, spec.rows,
                             spec.cols, {spec.cols, spec.rows}, 0.3f));
    }
    for (const model::LinearSpec& spec : model::GemmaLinears(config_)) {
      RETURN_IF_ERROR(Linear(spec));
    }
    for (const model::NormSpec& spec : model::GemmaNorms(config_)) {
      RETURN_IF_ERROR(Norm(spec));
    }
    return absl::OkStatus();
  }

  void Metadata() {
    for (const auto& [key, value] : model::GemmaMetadata(config_)) {
      writer_.Set(key, value);
    }
  }

  void Tokenizer() {
    std::vector<std::string> tokens = {"<pad>", "<eos>", "<bos>", "<unk>"};
    std::vector<int32_t> types = {3, 3, 3, 2};
    for (int byte = 0; byte < 256; ++byte) {
      tokens.push_back(absl::StrFormat("<0x%02X>", byte));
      types.push_back(6);
    }
    tokens.push_back("<end_of_turn>");
    types.push_back(3);
    for (char letter = 'a'; letter <= 'z'; ++letter) {
      tokens.push_back(std::string(1, letter));
      types.push_back(1);
    }
    tokens.push_back("\xE2\x96\x81");
    types.push_back(1);
    while (tokens.size() < kTinyVocab) {
      tokens.push_back(absl::StrCat("<unused", tokens.size(), ">"));
      types.push_back(5);
    }
    writer_.Set("tokenizer.ggml.model", std::string("llama"));
    writer_.Set("tokenizer.ggml.add_space_prefix", false);
    writer_.Set("tokenizer.ggml.scores",
                std::vector<float>(tokens.size(), 0.f));
    writer_.Set("tokenizer.ggml.tokens", std::move(tokens));
    writer_.Set("tokenizer.ggml.token_type", std::move(types));
    writer_.Set("tokenizer.ggml.padding_token_id", uint32_t{0});
    writer_.Set("tokenizer.ggml.eos_token_id", uint32_t{kTinyEos});
    writer_.Set("tokenizer.ggml.bos_token_id", uint32_t{kTinyBos});
    writer_.Set("tokenizer.ggml.unknown_token_id", uint32_t{3});
    if (!options_.suppressed_tokens.empty()) {
      writer_.Set("tokenizer.ggml.suppress_tokens", options_.suppressed_tokens);
    }
  }

  absl::Status WriteTo(const std::string& path) const {
    return writer_.WriteTo(path);
  }

 private:
  // Uniform with the given standard deviation, the same on every standard
  // library.
  std::vector<float> Random(int64_t count, float deviation) {
    std::vector<float> values(count);
    for (float& value : values) {
      const double uniform = (random_() >> 11) * 0x1.0p-53;
      value = static_cast<float>((uniform * 2 - 1) * 1.7320508) * deviation;
    }
    return values;
  }

  template <typename T>
  static std::vector<uint8_t> Bytes(const std::vector<T>& values) {
    std::vector<uint8_t> bytes(values.size() * sizeof(T));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }

  const TinyModelOptions options_;
  model::GemmaConfig config_;
  std::mt19937_64 random_;
  model::GgufWriter writer_;
};

}  // namespace

model::GemmaConfig TinyConfig(TinyStructure structure) {
  const model::GemmaLayer shape = {.head_dim = 32, .kv_heads = 2, .ff = 96};
  model::GemmaConfig config;
  config.vocab_size = kTinyVocab;
  config.hidden = 64;
  config.heads = 4;
  config.sliding_window = kTinyWindow;
  config.context_length = kTinyContext;
  config.layers = model::UniformLayers(kLayers, 3, shape);
  if (structure == TinyStructure::kGemma3) return config;
  config.family = model::GemmaFamily::kGemma4;
  config.attention_scale = 1;
  config.logit_softcap = 30;
  config.rope_global_pairs = 8;
  const bool edge = structure == TinyStructure::kGemma4Edge;
  config.layers = model::UniformLayers(edge ? 2 * kLayers : kLayers, 2, shape);
  for (model::GemmaLayer& layer : config.layers) {
    if (layer.global) layer.head_dim = 64;
    layer.value_is_key = layer.global && !edge;
    if (layer.value_is_key) layer.kv_heads = 1;
  }
  if (edge) {
    config.per_layer_width = 32;
    model::ShareKv(kLayers, config.layers);
    for (int64_t i = kLayers; i < 2 * kLayers; ++i) config.layers[i].ff *= 2;
  } else {
    config.experts = 8;
    config.experts_used = 2;
    config.expert_ff = 32;
  }
  return config;
}

TinyModelOptions MixedTinyModel() {
  TinyModelOptions options;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const std::string block = absl::StrCat("blk.", layer, ".");
    options.types[block + "attn_q.weight"] = quant::GgmlType::kQ8_0;
    options.types[block + "attn_output.weight"] = quant::GgmlType::kQ8_0;
    options.types[block + "ffn_gate.weight"] = quant::GgmlType::kQ2_0;
  }
  options.types["blk.0.attn_v.weight"] = quant::GgmlType::kQ2_0;
  options.types["blk.3.ffn_up.weight"] = quant::GgmlType::kQ2_0;
  options.types["token_embd.weight"] = quant::GgmlType::kQ4_0;
  return options;
}

absl::Status WriteTinyModel(const std::string& path,
                            const TinyModelOptions& options) {
  Builder builder(options);
  builder.Metadata();
  builder.Tokenizer();
  RETURN_IF_ERROR(builder.Tensors());
  return builder.WriteTo(path);
}

}  // namespace onegrid::inference
