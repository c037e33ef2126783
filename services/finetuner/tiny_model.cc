#include "services/finetuner/tiny_model.h"

#include <random>

namespace onegrid::finetuner {

GridCheckpoint MakeTinyCheckpoint(uint64_t seed) {
  GridCheckpoint checkpoint;
  model::GemmaConfig& config = checkpoint.config;
  config.vocab_size = kTinyVocab;
  config.hidden = 64;
  config.layers =
      model::UniformLayers(2, 2, {.head_dim = 32, .kv_heads = 2, .ff = 96});
  config.heads = 4;
  config.sliding_window = kTinyWindow;
  config.context_length = 64;
  config.attention_scale = 0.2;
  std::mt19937_64 random(seed);
  const auto code = [&](int range) {
    return static_cast<int8_t>(static_cast<int>(random() % (2 * range + 1)) -
                               range);
  };
  checkpoint.specs = model::GemmaLinears(config);
  for (const model::LinearSpec& spec : checkpoint.specs) {
    quant::GridMatrix matrix;
    matrix.rows = spec.out;
    matrix.cols = spec.in;
    for (int64_t i = 0; i < spec.out * spec.in; ++i) {
      matrix.codes.push_back(code(7));
    }
    matrix.scales.assign(
        static_cast<size_t>(spec.out * spec.in / quant::kGroup), 0x1p-5f);
    checkpoint.linears.push_back(matrix);
  }
  checkpoint.embedding.grid = &quant::kInt8G32;
  checkpoint.embedding.rows = config.vocab_size;
  checkpoint.embedding.cols = config.hidden;
  for (int64_t i = 0; i < config.vocab_size * config.hidden; ++i) {
    checkpoint.embedding.codes.push_back(code(127));
  }
  checkpoint.embedding.scales.assign(
      static_cast<size_t>(config.vocab_size * config.hidden / quant::kGroup),
      0x1p-9f);
  for (const model::NormSpec& spec : model::GemmaNorms(config)) {
    std::vector<float> norm;
    for (int64_t i = 0; i < spec.size; ++i) {
      norm.push_back(1.0f + 0.02f * static_cast<float>(code(10)));
    }
    checkpoint.norms.push_back(norm);
  }
  return checkpoint;
}

std::vector<TokenizedExample> MakeTinyExamples(int count, int spread,
                                               uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<TokenizedExample> examples;
  for (int i = 0; i < count; ++i) {
    TokenizedExample example;
    const int64_t length =
        5 + static_cast<int64_t>(random() % static_cast<uint64_t>(spread + 1));
    for (int64_t j = 0; j < length; ++j) {
      example.tokens.push_back(static_cast<int32_t>(random() % kTinyVocab));
    }
    example.labels = {{length - 3, length}};
    examples.push_back(example);
  }
  return examples;
}

}  // namespace onegrid::finetuner
