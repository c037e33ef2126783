#include "services/inference/tiny_model.h"

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

namespace onegrid::inference {
namespace {

constexpr int64_t kHidden = 64;
constexpr int64_t kFf = 96;
constexpr int64_t kHeads = 4;
constexpr int64_t kKvHeads = 2;
constexpr int64_t kHeadDim = 32;
constexpr int64_t kLayers = 4;

class Builder {
 public:
  explicit Builder(const TinyModelOptions& options)
      : options_(options), random_(options.seed) {}

  absl::Status Matrix(const std::string& name, quant::GgmlType type,
                      const std::vector<float>& w, int64_t out, int64_t in) {
    const auto found = options_.types.find(name);
    if (found != options_.types.end()) type = found->second;
    if (type == quant::GgmlType::kF32) {
      return writer_.AddTensor(name, type, {in, out}, Bytes(w));
    }
    if (type == quant::GgmlType::kBF16) {
      std::vector<uint16_t> halves;
      for (const float value : w) halves.push_back(kernels::FloatToBf16(value));
      return writer_.AddTensor(name, type, {in, out}, Bytes(halves));
    }
    ASSIGN_OR_RETURN(const quant::Grid* grid, quant::GridOfBlocks(type));
    ASSIGN_OR_RETURN(const quant::GridMatrix matrix,
                     quant::EncodeMatrix(w, out, in, *grid));
    ASSIGN_OR_RETURN(std::vector<uint8_t> blocks, quant::PackBlocks(matrix));
    return writer_.AddTensor(name, type, {in, out}, std::move(blocks));
  }

  absl::Status Linear(const std::string& name, int64_t out, int64_t in) {
    return Matrix(name, quant::GgmlType::kQ4_0,
                  Random(out * in, 1.5f / std::sqrt(in)), out, in);
  }

  absl::Status Norm(const std::string& name, int64_t size) {
    std::vector<float> w = Random(size, 0.2f);
    for (float& value : w) value += 1;
    return writer_.AddTensor(name, quant::GgmlType::kF32, {size}, Bytes(w));
  }

  absl::Status Embedding() {
    return Matrix("token_embd.weight", quant::GgmlType::kQ8_0,
                  Random(kTinyVocab * kHidden, 0.3f), kTinyVocab, kHidden);
  }

  absl::Status Layer(int64_t layer) {
    const auto name = [layer](const char* part) {
      return absl::StrCat("blk.", layer, ".", part, ".weight");
    };
    const int64_t q = kHeads * kHeadDim;
    const int64_t kv = kKvHeads * kHeadDim;
    RETURN_IF_ERROR(Norm(name("attn_norm"), kHidden));
    RETURN_IF_ERROR(Linear(name("attn_q"), q, kHidden));
    RETURN_IF_ERROR(Linear(name("attn_k"), kv, kHidden));
    RETURN_IF_ERROR(Linear(name("attn_v"), kv, kHidden));
    RETURN_IF_ERROR(Norm(name("attn_q_norm"), kHeadDim));
    RETURN_IF_ERROR(Norm(name("attn_k_norm"), kHeadDim));
    RETURN_IF_ERROR(Linear(name("attn_output"), kHidden, q));
    RETURN_IF_ERROR(Norm(name("post_attention_norm"), kHidden));
    RETURN_IF_ERROR(Norm(name("ffn_norm"), kHidden));
    RETURN_IF_ERROR(Linear(name("ffn_gate"), kFf, kHidden));
    RETURN_IF_ERROR(Linear(name("ffn_up"), kFf, kHidden));
    RETURN_IF_ERROR(Linear(name("ffn_down"), kHidden, kFf));
    return Norm(name("post_ffw_norm"), kHidden);
  }

  void Metadata() {
    writer_.Set("general.architecture", std::string("gemma3"));
    const std::pair<const char*, uint32_t> sizes[] = {
        {"context_length", kTinyContext},
        {"embedding_length", kHidden},
        {"block_count", kLayers},
        {"feed_forward_length", kFf},
        {"attention.head_count", kHeads},
        {"attention.head_count_kv", kKvHeads},
        {"attention.key_length", kHeadDim},
        {"attention.value_length", kHeadDim},
        {"attention.sliding_window", kTinyWindow},
        {"attention.sliding_window_pattern", 3},
    };
    for (const auto& [key, value] : sizes) {
      writer_.Set(absl::StrCat("gemma3.", key), value);
    }
    writer_.Set("gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
    writer_.Set("gemma3.rope.freq_base", 1e6f);
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
  std::mt19937_64 random_;
  model::GgufWriter writer_;
};

}  // namespace

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
  RETURN_IF_ERROR(builder.Embedding());
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    RETURN_IF_ERROR(builder.Layer(layer));
  }
  RETURN_IF_ERROR(builder.Norm("output_norm.weight", kHidden));
  return builder.WriteTo(path);
}

}  // namespace onegrid::inference
