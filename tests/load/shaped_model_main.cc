// Writes a GGUF of a Gemma's size with random weights, to measure speed with.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/float_types.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_writer.h"
#include "services/model/hf_model_config.h"
#include "services/model/quant_plan.h"
#include "services/model/tensor_names.h"

ABSL_FLAG(std::string, shape, "1b",
          "270m, 1b or 4b of Gemma 3; e2b, e4b, 26b_a4b of Gemma 4.");
ABSL_FLAG(std::string, linears, "Q4_0",
          "Type of the linears: Q4_0, Q2_0, Q8_0 or BF16.");
ABSL_FLAG(std::string, mlp, "", "Type of the MLPs; default: --linears.");
ABSL_FLAG(std::string, embedding, "Q8_0",
          "Type of the embedding, which is the head too.");
ABSL_FLAG(std::string, per_layer_embedding, "Q4_0",
          "Type of Gemma 4's table of each layer's own input.");
ABSL_FLAG(std::string, plan, "",
          "Preset of a quantization plan (int4, mobile_e2b) instead of the "
          "types above.");
ABSL_FLAG(std::string, tokenizer, "",
          "GGUF of a Gemma that the tokenizer is taken from.");
ABSL_FLAG(std::string, out, "", "File to write.");

namespace onegrid {
namespace {

using model::GemmaConfig;
using model::GemmaFamily;
using model::GemmaLayer;
using quant::GgmlType;

// Rows written at once.
constexpr int64_t kBytesAtOnce = 1 << 24;

// Of the models that Google published, config.json.
GemmaConfig Gemma3(int64_t hidden, int64_t ff, int64_t layers, int64_t heads,
                   int64_t kv_heads, int64_t window) {
  GemmaConfig config;
  config.hidden = hidden;
  config.heads = heads;
  config.layers = model::UniformLayers(
      layers, 6, {.head_dim = 256, .kv_heads = kv_heads, .ff = ff});
  config.sliding_window = window;
  config.context_length = 32768;
  return config;
}

GemmaConfig Gemma4(int64_t hidden, int64_t ff, int64_t layers, int64_t pattern,
                   int64_t heads, int64_t kv_heads, int64_t window) {
  GemmaConfig config = Gemma3(hidden, ff, layers, heads, kv_heads, window);
  config.family = GemmaFamily::kGemma4;
  config.layers = model::UniformLayers(
      layers, pattern, {.head_dim = 256, .kv_heads = kv_heads, .ff = ff});
  for (GemmaLayer& layer : config.layers) {
    if (layer.global) layer.head_dim = 512;
  }
  config.context_length = 131072;
  config.rope_global_pairs = 64;
  config.attention_scale = 1;
  config.logit_softcap = 30;
  return config;
}

GemmaConfig Edge(GemmaConfig config, int64_t shared, bool wide) {
  config.per_layer_width = 256;
  model::ShareKv(shared, config.layers);
  for (int64_t i = 0; i < config.layer_count(); ++i) {
    if (wide && !config.HasKv(i)) config.layers[i].ff *= 2;
  }
  return config;
}

GemmaConfig Experts(GemmaConfig config) {
  config.experts = 128;
  config.experts_used = 8;
  config.expert_ff = 704;
  for (GemmaLayer& layer : config.layers) {
    layer.value_is_key = layer.global;
    if (layer.global) layer.kv_heads = 2;
  }
  return config;
}

absl::StatusOr<GemmaConfig> ShapeNamed(const std::string& name) {
  if (name == "270m") return Gemma3(640, 2048, 18, 4, 1, 512);
  if (name == "1b") return Gemma3(1152, 6912, 26, 4, 1, 512);
  if (name == "4b") return Gemma3(2560, 10240, 34, 8, 4, 1024);
  if (name == "e2b") {
    return Edge(Gemma4(1536, 6144, 35, 5, 8, 1, 512), 20, /*wide=*/true);
  }
  if (name == "e4b") {
    return Edge(Gemma4(2560, 10240, 42, 6, 8, 2, 512), 18, /*wide=*/false);
  }
  if (name == "26b_a4b") {
    return Experts(Gemma4(2816, 2112, 30, 6, 16, 8, 1024));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--shape is \"", name, "\", expected 270m, 1b, 4b, e2b, e4b or 26b_a4b"));
}

absl::StatusOr<GgmlType> TypeNamed(const std::string& name) {
  for (const GgmlType type :
       {GgmlType::kQ4_0, GgmlType::kQ2_0, GgmlType::kQ8_0, GgmlType::kBF16}) {
    if (quant::TraitsOf(type)->name == name) return type;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("type \"", name, "\", expected Q4_0, Q2_0, Q8_0 or BF16"));
}

// Which type each matrix gets.
class Types {
 public:
  static absl::StatusOr<Types> FromFlags(const GemmaConfig& config) {
    Types types;
    const std::string linears = absl::GetFlag(FLAGS_linears);
    const std::string mlp = absl::GetFlag(FLAGS_mlp);
    ASSIGN_OR_RETURN(types.linears_, TypeNamed(linears));
    ASSIGN_OR_RETURN(types.mlp_, TypeNamed(mlp.empty() ? linears : mlp));
    ASSIGN_OR_RETURN(types.embedding_,
                     TypeNamed(absl::GetFlag(FLAGS_embedding)));
    ASSIGN_OR_RETURN(types.per_layer_embedding_,
                     TypeNamed(absl::GetFlag(FLAGS_per_layer_embedding)));
    if (const std::string plan = absl::GetFlag(FLAGS_plan); !plan.empty()) {
      ASSIGN_OR_RETURN(auto preset, model::QuantPlan::Preset(plan, config));
      types.plan_.push_back(std::move(preset));
    }
    return types;
  }

  GgmlType Of(const std::string& name) const {
    if (!plan_.empty()) return quant::BlockType(**plan_[0].GridFor(name));
    if (name == model::kGgufEmbedding) return embedding_;
    if (name == model::kGgufPerLayerEmbedding) return per_layer_embedding_;
    return absl::StrContains(name, ".ffn_") ? mlp_ : linears_;
  }

 private:
  Types() = default;

  GgmlType linears_, mlp_, embedding_, per_layer_embedding_;
  std::vector<model::QuantPlan> plan_;  // one, or none
};

class Writer {
 public:
  Writer(const GemmaConfig& config, const Types& types)
      : config_(config), types_(types) {}

  absl::Status Write(const std::string& tokenizer, const std::string& path) {
    RETURN_IF_ERROR(CopyTokenizer(tokenizer));
    for (const auto& [key, value] : model::GemmaMetadata(config_)) {
      writer_.Set(key, value);
    }
    writer_.Set("general.name", std::string("random weights"));
    for (const model::TableSpec& spec : model::GemmaTables(config_)) {
      RETURN_IF_ERROR(Matrix(spec.gguf_name, {spec.cols, spec.rows}));
    }
    for (const model::LinearSpec& spec : model::GemmaLinears(config_)) {
      RETURN_IF_ERROR(Matrix(spec.gguf_name, spec.GgufDims()));
    }
    for (const model::NormSpec& spec : model::GemmaNorms(config_)) {
      RETURN_IF_ERROR(Norm(spec));
    }
    return writer_.WriteTo(path);
  }

 private:
  // Everything of the tokenizer; the vocabulary is as large as it.
  absl::Status CopyTokenizer(const std::string& path) {
    ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(path));
    for (const auto& [key, value] : file->metadata()) {
      if (absl::StartsWith(key, "tokenizer.")) writer_.Set(key, value);
    }
    ASSIGN_OR_RETURN(const std::vector<std::string> tokens,
                     file->GetStrings("tokenizer.ggml.tokens"));
    config_.vocab_size = static_cast<int64_t>(tokens.size());
    return absl::OkStatus();
  }

  absl::Status Norm(const model::NormSpec& spec) {
    const auto size =
        static_cast<size_t>(spec.size * std::max<int64_t>(1, spec.rows));
    std::vector<float> values(size, 1.0f);
    if (spec.gguf_name == model::kGgufRopeFactors) {
      values = model::RopeFactors(config_);
    } else if (spec.rows > 0) {  // a router: any experts
      for (float& value : values) {
        value = static_cast<float>(random_() % 2001) / 1000.0f - 1.0f;
      }
    }
    std::vector<uint8_t> bytes(values.size() * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return writer_.AddTensor(spec.gguf_name, GgmlType::kF32, spec.GgufDims(),
                             std::move(bytes));
  }

  absl::Status Matrix(const std::string& name,
                      const std::vector<int64_t>& dims) {
    const GgmlType type = types_.Of(name);
    int64_t rows = 1;
    for (size_t i = 1; i < dims.size(); ++i) rows *= dims[i];
    return writer_.AddProduced(name, type, dims,
                               [=, this](const model::GgufWriter::Sink& sink) {
                                 return Produce(type, rows, dims[0], sink);
                               });
  }

  absl::Status Produce(GgmlType type, int64_t rows, int64_t cols,
                       const model::GgufWriter::Sink& sink) {
    ASSIGN_OR_RETURN(const int64_t row_bytes, quant::RowBytes(type, cols));
    const int64_t step = std::max<int64_t>(1, kBytesAtOnce / row_bytes);
    for (int64_t row = 0; row < rows; row += step) {
      RETURN_IF_ERROR(
          sink(Blocks(type, std::min(step, rows - row) * row_bytes, cols)));
    }
    return absl::OkStatus();
  }

  // Random codes; values of about 1 / sqrt(in).
  std::vector<uint8_t> Blocks(GgmlType type, int64_t bytes, int64_t in) {
    const auto traits = *quant::TraitsOf(type);
    std::vector<uint8_t> blocks(static_cast<size_t>(bytes));
    for (size_t i = 0; i + 8 <= blocks.size(); i += 8) {
      const uint64_t bits = random_();
      std::memcpy(&blocks[i], &bits, sizeof(bits));
    }
    const float size = 1 / std::sqrt(static_cast<float>(in));
    if (type == GgmlType::kBF16) {
      // Random signs and fractions of one exponent.
      const uint16_t exponent = kernels::FloatToBf16(size) & 0x7F80;
      for (size_t i = 0; i < blocks.size(); i += 2) {
        uint16_t bits;
        std::memcpy(&bits, &blocks[i], sizeof(bits));
        bits = static_cast<uint16_t>((bits & 0x807F) | exponent);
        std::memcpy(&blocks[i], &bits, sizeof(bits));
      }
      return blocks;
    }
    // The standard deviation of uniform codes of 2, 4 and 8 bits.
    const float spread = type == GgmlType::kQ2_0   ? 1.1f
                         : type == GgmlType::kQ4_0 ? 4.6f
                                                   : 73.9f;
    const uint16_t scale = kernels::FloatToF16(size / spread);
    for (size_t i = 0; i < blocks.size();
         i += static_cast<size_t>(traits.block_bytes)) {
      std::memcpy(&blocks[i], &scale, sizeof(scale));
    }
    return blocks;
  }

  GemmaConfig config_;
  const Types types_;
  std::mt19937_64 random_{1};
  model::GgufWriter writer_;
};

absl::Status Run() {
  ASSIGN_OR_RETURN(const GemmaConfig config,
                   ShapeNamed(absl::GetFlag(FLAGS_shape)));
  ASSIGN_OR_RETURN(const Types types, Types::FromFlags(config));
  if (absl::GetFlag(FLAGS_tokenizer).empty() ||
      absl::GetFlag(FLAGS_out).empty()) {
    return absl::InvalidArgumentError("name a --tokenizer and an --out");
  }
  return Writer(config, types)
      .Write(absl::GetFlag(FLAGS_tokenizer), absl::GetFlag(FLAGS_out));
}

}  // namespace
}  // namespace onegrid

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Writes a GGUF of a Gemma's size with random weights.\n"
      "  shaped_model --shape=1b --linears=Q4_0 [--mlp=Q2_0]\n"
      "      [--embedding=Q8_0] --tokenizer=GEMMA.gguf --out=FILE.gguf\n"
      "  shaped_model --shape=e2b --plan=mobile_e2b ...\n"
      "Same flags, same bytes. It says nothing sensible, but takes as long to\n"
      "say it as a trained model.");
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    std::fprintf(stderr, "shaped_model: unexpected argument %s\n", rest[1]);
    return 1;
  }
  const absl::Status status = onegrid::Run();
  if (status.ok()) return 0;
  std::fprintf(stderr, "shaped_model: %s\n",
               std::string(status.message()).c_str());
  return 1;
}
