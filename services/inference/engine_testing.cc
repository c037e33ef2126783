#include "services/inference/engine_testing.h"

#include <string>
#include <utility>

#include "absl/types/span.h"
#include "gtest/gtest.h"

namespace onegrid::inference {

TinyWeights LoadTiny(const TinyModelOptions& tiny, kernels::ThreadPool& pool) {
  const std::string path = testing::TempDir() + "/tiny_engine_types.gguf";
  EXPECT_TRUE(WriteTinyModel(path, tiny).ok());
  auto file = model::GgufFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  auto weights = LoadGemmaWeights(**file, pool);
  EXPECT_TRUE(weights.ok()) << weights.status();
  return {*std::move(file), *std::move(weights)};
}

void AppendRows(Engine& engine, Rows* rows) {
  for (int i = 0; i < engine.output_rows(); ++i) {
    const absl::Span<const float> row = engine.Logits(i, 1);
    rows->emplace_back(row.begin(), row.end());
  }
}

Rows RunRows(Engine& engine, int slot, const std::vector<int32_t>& tokens,
             int chunk) {
  engine.Reset(slot);
  Rows rows;
  for (size_t at = 0; at < tokens.size(); at += chunk) {
    const absl::Span<const int32_t> part =
        absl::MakeConstSpan(tokens).subspan(at, chunk);
    EXPECT_TRUE(engine.Forward({Chunk{slot, part, 0}}).ok());
    AppendRows(engine, &rows);
  }
  return rows;
}

}  // namespace onegrid::inference
