#include "services/model/gguf_test_file.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace onegrid::model {

std::string WriteTestFile(const std::string& name, const std::string& bytes) {
  const std::string path = std::string(std::getenv("TEST_TMPDIR")) + "/" + name;
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string ReadTestFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::vector<std::pair<std::string, GgufValue>> TinyTokenizerMetadata(
    const std::vector<std::string>& normal) {
  std::vector<std::string> tokens = {"<pad>",
                                     "<eos>",
                                     "<bos>",
                                     "<unk>",
                                     "<start_of_turn>",
                                     "<end_of_turn>",
                                     "</s>",
                                     "\n\n",
                                     "  ",
                                     "\u2581",
                                     "a",
                                     "b",
                                     "c",
                                     "n",
                                     "x",
                                     "<"};
  std::vector<int32_t> types = {3, 3, 3, 3, 3, 3, 4, 4, 4, 1, 1, 1, 1, 1, 1, 1};
  std::vector<float> scores(tokens.size(), -1000.0f);
  for (size_t i = 0; i < normal.size(); ++i) {
    tokens.push_back(normal[i]);
    types.push_back(1);
    scores.push_back(-static_cast<float>(i));
  }
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", byte);
    tokens.push_back(name);
    types.push_back(6);
    scores.push_back(0.0f);
  }
  return {{"tokenizer.ggml.model", std::string("llama")},
          {"tokenizer.ggml.tokens", tokens},
          {"tokenizer.ggml.scores", scores},
          {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.bos_token_id", uint32_t{2}},
          {"tokenizer.ggml.eos_token_id", uint32_t{1}},
          {"tokenizer.ggml.unknown_token_id", uint32_t{3}},
          {"tokenizer.ggml.padding_token_id", uint32_t{0}},
          {"tokenizer.ggml.add_space_prefix", false}};
}

GgufWriter TinyGemma3() {
  constexpr int64_t kHidden = 8;
  constexpr int64_t kFf = 12;
  constexpr int64_t kQ = 8;
  constexpr int64_t kKv = 4;
  constexpr int64_t kHeadDim = 2;
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  const std::pair<const char*, uint32_t> numbers[] = {
      {"embedding_length", kHidden},
      {"block_count", 2},
      {"context_length", 64},
      {"feed_forward_length", kFf},
      {"attention.head_count", 4},
      {"attention.head_count_kv", 2},
      {"attention.key_length", kHeadDim},
      {"attention.value_length", kHeadDim},
      {"attention.sliding_window", 4}};
  for (const auto& [key, value] : numbers) {
    writer.Set(std::string("gemma3.") + key, value);
  }
  writer.Set("gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
  writer.Set("gemma3.rope.freq_base", 1e6f);
  for (auto& [key, value] : TinyTokenizerMetadata({})) writer.Set(key, value);
  const auto add = [&](const std::string& name, std::vector<int64_t> dims) {
    int64_t elements = 1;
    for (const int64_t size : dims) elements *= size;
    const absl::Status status =
        writer.AddTensor(name, quant::GgmlType::kF32, dims,
                         std::vector<uint8_t>(elements * sizeof(float)));
    if (!status.ok()) std::abort();
  };
  add("token_embd.weight", {kHidden, kTinyFirstNormal + 256});
  add("output_norm.weight", {kHidden});
  for (int layer = 0; layer < 2; ++layer) {
    const std::string block = "blk." + std::to_string(layer) + ".";
    add(block + "attn_q.weight", {kHidden, kQ});
    add(block + "attn_k.weight", {kHidden, kKv});
    add(block + "attn_v.weight", {kHidden, kKv});
    add(block + "attn_output.weight", {kQ, kHidden});
    add(block + "ffn_gate.weight", {kHidden, kFf});
    add(block + "ffn_up.weight", {kHidden, kFf});
    add(block + "ffn_down.weight", {kFf, kHidden});
    add(block + "attn_q_norm.weight", {kHeadDim});
    add(block + "attn_k_norm.weight", {kHeadDim});
    for (const char* norm :
         {"attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"}) {
      add(block + norm + ".weight", {kHidden});
    }
  }
  return writer;
}

}  // namespace onegrid::model
