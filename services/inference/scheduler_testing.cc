#include "services/inference/scheduler_testing.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/model/gguf_reader.h"

namespace onegrid::inference {

std::vector<int32_t> Prompt(int length, int seed) {
  std::vector<int32_t> tokens = {kTinyBos};
  while (static_cast<int>(tokens.size()) < length) {
    seed = (seed * 29 + 7) % 1009;
    tokens.push_back(kTinyLetterA + seed % 26);
  }
  return tokens;
}

void SchedulerTest::Start(int slots, int64_t kv_limit, int64_t prefix_bytes,
                          int max_queue, absl::Duration max_queue_delay,
                          int calm_queue) {
  // Each uses the next one.
  scheduler_.reset();
  engine_.reset();
  const std::string path = absl::StrCat(
      testing::TempDir(), "/",
      testing::UnitTest::GetInstance()->current_test_info()->name(), ".gguf");
  ASSERT_TRUE(WriteTinyModel(path).ok());
  const auto file = model::GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  auto weights =
      LoadGemmaWeights(**file, pool_, cpu::PackedLinear::Storage::kSplit);
  ASSERT_TRUE(weights.ok()) << weights.status();
  weights_ = std::make_unique<GemmaWeights>(*std::move(weights));
  EngineOptions options;
  options.max_sequences = slots;
  options.max_context = kTinyContext;
  options.max_step_tokens = 32;
  options.prefix_bytes = prefix_bytes;
  auto engine = Engine::Create(*weights_, options, pool_);
  ASSERT_TRUE(engine.ok()) << engine.status();
  engine_ = *std::move(engine);
  SchedulerOptions how;
  how.max_queue = max_queue;
  how.max_queue_delay = max_queue_delay;
  how.calm_queue = calm_queue;
  how.kv_limit = kv_limit;
  how.step = step_;
  scheduler_ = std::make_unique<Scheduler>(*engine_, pool_, how);
}

}  // namespace onegrid::inference
