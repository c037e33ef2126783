#include "tests/fuzz/tiny_files.h"

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ggml_types.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_test_file.h"
#include "services/model/gguf_writer.h"
#include "services/model/hf_model_config.h"
#include "services/model/safetensors.h"
#include "services/model/tensor_names.h"
#include "tests/fuzz/fuzz_input.h"

namespace onegrid::fuzz {
namespace {

using model::GgufWriter;
using model::SafetensorsWriter;
using quant::GgmlType;

constexpr int64_t kGroup = 32;

// The bytes that a writer writes.
template <typename Writer>
std::string Written(const Writer& writer) {
  const std::string path = Put("written", "");
  Promise(writer.WriteTo(path).ok(), "a seed cannot be written");
  std::ifstream file(path, std::ios::binary);
  std::string bytes(std::istreambuf_iterator<char>(file), {});
  file.close();
  Remove("written");
  return bytes;
}

void SetTokens(GgufWriter& writer) {
  const std::vector<std::string> words = {
      "ab", "abc", "\u2581a", "ca", "\u2581\u2581", "\u00e9", "\u4e2d"};
  for (auto& [key, value] : model::TinyTokenizerMetadata(words)) {
    writer.Set(key, value);
  }
}

void Add(GgufWriter& writer, const std::string& name, GgmlType type,
         const std::vector<int64_t>& dims) {
  int64_t elements = 1;
  for (const int64_t size : dims) elements *= size;
  const int64_t bytes = *quant::RowBytes(type, elements);
  Promise(writer.AddTensor(name, type, dims, std::vector<uint8_t>(bytes)).ok(),
          name);
}

void Add(SafetensorsWriter& writer, const std::string& name,
         const std::string& dtype, const std::vector<int64_t>& shape,
         int64_t width) {
  int64_t bytes = width;
  for (const int64_t size : shape) bytes *= size;
  Promise(writer.Add(name, dtype, shape, std::vector<uint8_t>(bytes)).ok(),
          name);
}

void AddPacked(SafetensorsWriter& writer, const std::string& module,
               int64_t out, int64_t in) {
  Add(writer, absl::StrCat(module, ".weight_shape"), "I64", {2}, 8);
  Add(writer, absl::StrCat(module, ".weight_packed"), "I32", {out, in / 8}, 4);
  Add(writer, absl::StrCat(module, ".weight_scale"), "F32", {out, in / kGroup},
      4);
}

void AddMatrix(SafetensorsWriter& writer, const std::string& module,
               int64_t out, int64_t in, bool packed) {
  if (packed) return AddPacked(writer, module, out, in);
  Add(writer, absl::StrCat(module, ".weight"), "BF16", {out, in}, 2);
}

}  // namespace

model::GemmaConfig TinyConfig() {
  model::GemmaConfig config;
  config.vocab_size = static_cast<int64_t>(TinyVocabulary().tokens.size());
  config.hidden = 32;
  config.layers =
      model::UniformLayers(1, 2, {.head_dim = 32, .kv_heads = 1, .ff = 32});
  config.heads = 1;
  config.sliding_window = 4;
  config.context_length = 64;
  config.attention_scale = 1 / 5.656854249492381;
  return config;
}

model::Vocabulary TinyVocabulary() { return TinyTokenizer().vocabulary(); }

const model::Tokenizer& TinyTokenizer() {
  static const model::Tokenizer* const tokenizer = [] {
    GgufWriter writer;
    writer.Set("general.architecture", std::string("gemma3"));
    SetTokens(writer);
    const std::string path = Put("tokenizer.gguf", Written(writer));
    const auto file = model::GgufFile::Open(path);
    Promise(file.ok(), file.status().ToString());
    auto made = model::Tokenizer::FromGguf(**file);
    Promise(made.ok(), made.status().ToString());
    Remove("tokenizer.gguf");
    return made->release();
  }();
  return *tokenizer;
}

std::string TinyGguf() {
  const model::GemmaConfig config = TinyConfig();
  GgufWriter writer;
  for (auto& [key, value] : model::GemmaMetadata(config)) {
    writer.Set(key, value);
  }
  SetTokens(writer);
  Add(writer, model::kGgufEmbedding, GgmlType::kQ8_0,
      {config.hidden, config.vocab_size});
  for (const model::LinearSpec& spec : model::GemmaLinears(config)) {
    Add(writer, spec.gguf_name, GgmlType::kQ4_0, {spec.in, spec.out});
  }
  for (const model::NormSpec& spec : model::GemmaNorms(config)) {
    Add(writer, spec.gguf_name, GgmlType::kF32, {spec.size});
  }
  return Written(writer);
}

std::string EveryTypeGguf() {
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  writer.Set("general.alignment", uint32_t{32});
  writer.Set("u8", uint8_t{1});
  writer.Set("i8", int8_t{-1});
  writer.Set("u16", uint16_t{1});
  writer.Set("i16", int16_t{-1});
  writer.Set("i32", int32_t{-1});
  writer.Set("f32", 0.5f);
  writer.Set("bool", true);
  writer.Set("u64", uint64_t{1});
  writer.Set("i64", int64_t{-1});
  writer.Set("f64", 0.5);
  writer.Set("array.u8", std::vector<uint8_t>{1, 2});
  writer.Set("array.i16", std::vector<int16_t>{1, -2});
  writer.Set("array.bool", std::vector<bool>{true, false});
  writer.Set("array.f64", std::vector<double>{1.5});
  writer.Set("array.u64", std::vector<uint64_t>{1});
  writer.Set("array.string", std::vector<std::string>{"a", ""});
  const GgmlType types[] = {
      GgmlType::kF32,    GgmlType::kF16,    GgmlType::kQ4_0, GgmlType::kQ4_1,
      GgmlType::kQ5_0,   GgmlType::kQ5_1,   GgmlType::kQ8_0, GgmlType::kQ2_K,
      GgmlType::kQ3_K,   GgmlType::kQ4_K,   GgmlType::kQ5_K, GgmlType::kQ6_K,
      GgmlType::kIQ4_NL, GgmlType::kIQ4_XS, GgmlType::kBF16, GgmlType::kTQ1_0,
      GgmlType::kTQ2_0,  GgmlType::kMXFP4,  GgmlType::kQ2_0};
  for (const GgmlType type : types) {
    const auto traits = *quant::TraitsOf(type);
    Add(writer, traits.name, type, {traits.block_elements, 1});
  }
  Add(writer, "end", GgmlType::kF32, {8});  // without padding behind it
  return Written(writer);
}

std::vector<std::string> TinyShards() {
  std::vector<std::string> shards;
  for (uint16_t i = 0; i < 2; ++i) {
    GgufWriter writer;
    writer.Set("general.architecture", std::string("gemma3"));
    writer.Set("split.no", i);
    writer.Set("split.count", uint16_t{2});
    writer.Set("split.tensors.count", int32_t{2});
    Add(writer, i == 0 ? "a" : "b", GgmlType::kF32, {4});
    shards.push_back(Written(writer));
  }
  return shards;
}

std::string TinySafetensors(bool packed) {
  const model::GemmaConfig config = TinyConfig();
  SafetensorsWriter writer;
  writer.SetMetadata("format", "pt");
  const std::string embedding(model::kHfEmbedding,
                              sizeof(model::kHfEmbedding) - sizeof(".weight"));
  AddMatrix(writer, embedding, config.vocab_size, config.hidden, packed);
  for (const model::LinearSpec& spec : model::GemmaLinears(config)) {
    AddMatrix(writer, spec.hf_name, spec.out, spec.in, packed);
  }
  for (const model::NormSpec& spec : model::GemmaNorms(config)) {
    Add(writer, spec.hf_name, "BF16", {spec.size}, 2);
  }
  return Written(writer);
}

std::string TinyConfigJson(bool packed) {
  const char* kPacked = R"({"quant_method": "compressed-tensors",
    "format": "pack-quantized", "config_groups": {"group_0": {"targets":
    ["Linear"], "weights": {"num_bits": 4, "group_size": 32, "strategy":
    "group"}}}})";
  return *model::HfConfigJson(TinyConfig(), "bfloat16", packed ? kPacked : "");
}

std::string TinyMobileSafetensors() {
  const model::GemmaConfig config = TinyConfig();
  SafetensorsWriter writer;
  const int64_t vocab = config.vocab_size, hidden = config.hidden;
  Add(writer, "model.embed_tokens.embedding_quantized", "I8", {vocab, hidden},
      1);
  Add(writer, "model.embed_tokens.embedding_scale", "F32", {vocab, 1}, 4);
  const auto add = [&](const std::string& module, int64_t out, int64_t bytes) {
    Add(writer, module + ".weight", "U8", {out, bytes}, 1);
    Add(writer, module + ".weight_scale", "F32", {out, 1}, 4);
    Add(writer, module + ".input_activation_scale", "F32", {1}, 4);
  };
  add("lm_head", vocab, hidden / 4);
  for (const model::LinearSpec& spec : model::GemmaLinears(config)) {
    add(spec.hf_name, spec.out, spec.in / 2);
  }
  for (const model::NormSpec& spec : model::GemmaNorms(config)) {
    Add(writer, spec.hf_name, "BF16", {spec.size}, 2);
  }
  return Written(writer);
}

std::string TinyMobileConfigJson() {
  model::GemmaConfig config = TinyConfig();
  config.tied_head = false;
  return *model::HfConfigJson(config, "float32",
                              R"({"quant_method": "gemma", "num_bits": 4,
    "quantize_embeddings": true, "module_quant_configs":
    {"lm_head": {"num_bits": 2}, "embed_tokens$": {"num_bits": 8}
}
, "modules_to_not_convert" : ["model.vision_tower"]
})");
}

std::string TinyFolded() {
  const model::GemmaConfig config = TinyConfig();
  SafetensorsWriter writer;
  for (const model::LinearSpec& spec : model::GemmaLinears(config)) {
    Add(writer, absl::StrCat(spec.gguf_name, ".scales"), "F32",
        {spec.out, spec.in / kGroup}, 4);
    Add(writer, absl::StrCat(spec.gguf_name, ".codes"), "I8",
        {spec.out, spec.in}, 1);
  }
  writer.SetMetadata("grids", R"({"blk.0.attn_q.weight": "int8_g32"})");
  return Written(writer);
}

std::string TinyAdapter(int64_t rank) {
  SafetensorsWriter writer;
  const model::LinearSpec spec = model::GemmaLinears(TinyConfig())[0];
  const std::string stem =
      absl::StrCat("base_model.model.", spec.hf_name, ".lora_");
  Add(writer, stem + "A.weight", "F32", {rank, spec.in}, 4);
  Add(writer, stem + "B.weight", "F32", {spec.out, rank}, 4);
  return Written(writer);
}

std::string TinyAdapterGguf() {
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  writer.Set("general.type", std::string("adapter"));
  writer.Set("adapter.type", std::string("lora"));
  writer.Set("adapter.lora.alpha", 4.0f);
  const model::LinearSpec spec = model::GemmaLinears(TinyConfig())[0];
  Add(writer, spec.gguf_name + ".lora_a", GgmlType::kQ8_0, {spec.in, 2});
  Add(writer, spec.gguf_name + ".lora_b", GgmlType::kF16, {2, spec.out});
  return Written(writer);
}

std::string TinyProbe() {
  SafetensorsWriter writer;
  writer.SetMetadata("format", "onegrid.probe.v1");
  Add(writer, "token_ids", "I32", {2}, 4);
  std::vector<uint8_t> starts = {0, 0, 0, 0, 2, 0, 0, 0};
  Promise(writer.Add("sequence_starts", "I32", {2}, std::move(starts)).ok(),
          "sequence_starts");
  Add(writer, "top_ids", "I32", {1, 1024}, 4);
  Add(writer, "top_logprobs", "F32", {1, 1024}, 4);
  return Written(writer);
}

}  // namespace onegrid::fuzz
