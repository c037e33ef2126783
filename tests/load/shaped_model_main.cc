// Writes a GGUF of a Gemma 3 size with random weights, to measure speed with.
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
#include "services/common/error_info.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_writer.h"

ABSL_FLAG(std::string, shape, "1b", "270m, 1b or 4b.");
ABSL_FLAG(std::string, linears, "Q4_0",
          "Type of the linears: Q4_0, Q2_0, Q8_0 or BF16.");
ABSL_FLAG(std::string, mlp, "", "Type of the MLPs; default: --linears.");
ABSL_FLAG(std::string, embedding, "Q8_0",
          "Type of the embedding, which is the head too.");
ABSL_FLAG(std::string, tokenizer, "",
          "GGUF of a Gemma 3 that the tokenizer is taken from.");
ABSL_FLAG(std::string, out, "", "File to write.");

namespace onegrid {
namespace {

using quant::GgmlType;

// Of the models that Google published, config.json.
struct Shape {
  const char* name;
  int64_t hidden, ff, layers, heads, kv_heads, window;
};
constexpr int64_t kHeadDim = 256;
constexpr Shape kShapes[] = {{"270m", 640, 2048, 18, 4, 1, 512},
                             {"1b", 1152, 6912, 26, 4, 1, 512},
                             {"4b", 2560, 10240, 34, 8, 4, 1024}};

absl::StatusOr<Shape> ShapeNamed(const std::string& name) {
  for (const Shape& shape : kShapes) {
    if (name == shape.name) return shape;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--shape is \"", name, "\", expected 270m, 1b or 4b"));
}

absl::StatusOr<GgmlType> TypeNamed(const std::string& name) {
  for (const GgmlType type :
       {GgmlType::kQ4_0, GgmlType::kQ2_0, GgmlType::kQ8_0, GgmlType::kBF16}) {
    if (quant::TraitsOf(type)->name == name) return type;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("type \"", name, "\", expected Q4_0, Q2_0, Q8_0 or BF16"));
}

class Writer {
 public:
  Writer(const Shape& shape, GgmlType linears, GgmlType mlp)
      : shape_(shape), linears_(linears), mlp_(mlp) {}

  // Everything of the tokenizer but its chat template's users.
  absl::StatusOr<int64_t> CopyTokenizer(const std::string& path) {
    ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(path));
    for (const auto& [key, value] : file->metadata()) {
      if (absl::StartsWith(key, "tokenizer.")) writer_.Set(key, value);
    }
    ASSIGN_OR_RETURN(const std::vector<std::string> tokens,
                     file->GetStrings("tokenizer.ggml.tokens"));
    return static_cast<int64_t>(tokens.size());
  }

  absl::Status Write(int64_t vocabulary, GgmlType embedding,
                     const std::string& path) {
    Metadata();
    RETURN_IF_ERROR(
        Matrix("token_embd.weight", embedding, vocabulary, shape_.hidden));
    for (int64_t i = 0; i < shape_.layers; ++i) RETURN_IF_ERROR(Layer(i));
    RETURN_IF_ERROR(Norm("output_norm.weight", shape_.hidden));
    return writer_.WriteTo(path);
  }

 private:
  void Metadata() {
    writer_.Set("general.architecture", std::string("gemma3"));
    writer_.Set("general.name", absl::StrCat("random gemma 3 ", shape_.name));
    const std::pair<const char*, int64_t> sizes[] = {
        {"context_length", 32768},
        {"embedding_length", shape_.hidden},
        {"block_count", shape_.layers},
        {"feed_forward_length", shape_.ff},
        {"attention.head_count", shape_.heads},
        {"attention.head_count_kv", shape_.kv_heads},
        {"attention.key_length", kHeadDim},
        {"attention.value_length", kHeadDim},
        {"attention.sliding_window", shape_.window},
    };
    for (const auto& [key, value] : sizes) {
      writer_.Set(absl::StrCat("gemma3.", key), static_cast<uint32_t>(value));
    }
    writer_.Set("gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
    writer_.Set("gemma3.rope.freq_base", 1e6f);
  }

  absl::Status Layer(int64_t layer) {
    const auto name = [layer](const char* part) {
      return absl::StrCat("blk.", layer, ".", part, ".weight");
    };
    const int64_t hidden = shape_.hidden, ff = shape_.ff;
    const int64_t q = shape_.heads * kHeadDim, kv = shape_.kv_heads * kHeadDim;
    RETURN_IF_ERROR(Matrix(name("attn_q"), linears_, q, hidden));
    RETURN_IF_ERROR(Matrix(name("attn_k"), linears_, kv, hidden));
    RETURN_IF_ERROR(Matrix(name("attn_v"), linears_, kv, hidden));
    RETURN_IF_ERROR(Matrix(name("attn_output"), linears_, hidden, q));
    RETURN_IF_ERROR(Matrix(name("ffn_gate"), mlp_, ff, hidden));
    RETURN_IF_ERROR(Matrix(name("ffn_up"), mlp_, ff, hidden));
    RETURN_IF_ERROR(Matrix(name("ffn_down"), mlp_, hidden, ff));
    RETURN_IF_ERROR(Norm(name("attn_q_norm"), kHeadDim));
    RETURN_IF_ERROR(Norm(name("attn_k_norm"), kHeadDim));
    for (const char* norm : {"attn_norm", "post_attention_norm", "ffn_norm"}) {
      RETURN_IF_ERROR(Norm(name(norm), hidden));
    }
    return Norm(name("post_ffw_norm"), hidden);
  }

  absl::Status Norm(const std::string& name, int64_t size) {
    const std::vector<float> ones(static_cast<size_t>(size), 1.0f);
    std::vector<uint8_t> bytes(ones.size() * sizeof(float));
    std::memcpy(bytes.data(), ones.data(), bytes.size());
    return writer_.AddTensor(name, GgmlType::kF32, {size}, std::move(bytes));
  }

  // Random codes; values of about 1 / sqrt(in).
  absl::Status Matrix(const std::string& name, GgmlType type, int64_t out,
                      int64_t in) {
    const auto traits = *quant::TraitsOf(type);
    ASSIGN_OR_RETURN(const int64_t bytes, quant::RowBytes(type, out * in));
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
    } else {
      // The standard deviation of uniform codes of 2, 4 and 8 bits.
      const float spread = type == GgmlType::kQ2_0   ? 1.1f
                           : type == GgmlType::kQ4_0 ? 4.6f
                                                     : 73.9f;
      const uint16_t scale = kernels::FloatToF16(size / spread);
      for (size_t i = 0; i < blocks.size();
           i += static_cast<size_t>(traits.block_bytes)) {
        std::memcpy(&blocks[i], &scale, sizeof(scale));
      }
    }
    return writer_.AddTensor(name, type, {in, out}, std::move(blocks));
  }

  const Shape shape_;
  const GgmlType linears_;
  const GgmlType mlp_;
  std::mt19937_64 random_{1};
  model::GgufWriter writer_;
};

absl::Status Run() {
  ASSIGN_OR_RETURN(const Shape shape, ShapeNamed(absl::GetFlag(FLAGS_shape)));
  const std::string linears_name = absl::GetFlag(FLAGS_linears);
  const std::string mlp_name = absl::GetFlag(FLAGS_mlp);
  ASSIGN_OR_RETURN(const GgmlType linears, TypeNamed(linears_name));
  ASSIGN_OR_RETURN(const GgmlType mlp,
                   TypeNamed(mlp_name.empty() ? linears_name : mlp_name));
  ASSIGN_OR_RETURN(const GgmlType embedding,
                   TypeNamed(absl::GetFlag(FLAGS_embedding)));
  if (absl::GetFlag(FLAGS_tokenizer).empty() ||
      absl::GetFlag(FLAGS_out).empty()) {
    return absl::InvalidArgumentError("name a --tokenizer and an --out");
  }
  Writer writer(shape, linears, mlp);
  ASSIGN_OR_RETURN(const int64_t vocabulary,
                   writer.CopyTokenizer(absl::GetFlag(FLAGS_tokenizer)));
  return writer.Write(vocabulary, embedding, absl::GetFlag(FLAGS_out));
}

}  // namespace
}  // namespace onegrid

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Writes a GGUF of a Gemma 3 size with random weights.\n"
      "  shaped_model --shape=1b --linears=Q4_0 [--mlp=Q2_0]\n"
      "      [--embedding=Q8_0] --tokenizer=GEMMA3.gguf --out=FILE.gguf\n"
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
