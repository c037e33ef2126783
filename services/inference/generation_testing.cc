#include "services/inference/generation_testing.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace onegrid::inference {

bool SaysTheSame(const Generated& a, const Generated& b) {
  return a.tokens == b.tokens && a.logprobs == b.logprobs &&
         a.top_ids == b.top_ids && a.top_logprobs == b.top_logprobs;
}

v1::GenerateRequest TextRequest(const std::string& text, int max_tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

Generated Generate(GenerationService& service,
                   const v1::GenerateRequest& request,
                   const CallContext& context) {
  Generated result;
  const auto add = [](const auto& from, auto* to) {
    to->insert(to->end(), from.begin(), from.end());
  };
  int started = 0;
  result.status = service.Generate(
      request, context, [&](const v1::GenerateResponse& response) {
        if (response.has_started()) {
          EXPECT_EQ(++started, 1);
          result.started = response.started();
        } else if (response.has_delta()) {
          EXPECT_EQ(started, 1);
          const v1::Delta& delta = response.delta();
          result.text += delta.text();
          add(delta.token_ids(), &result.tokens);
          add(delta.logprobs(), &result.logprobs);
          add(delta.top_ids(), &result.top_ids);
          add(delta.top_logprobs(), &result.top_logprobs);
        } else {
          result.finished = response.finished();
        }
        return true;
      });
  return result;
}

std::string TestModelPath() {
  return absl::StrCat(
      testing::TempDir(), "/",
      absl::StrReplaceAll(
          testing::UnitTest::GetInstance()->current_test_info()->name(),
          {{"/", "_"}}),
      ".gguf");
}

void GenerationServiceTest::Start(int max_sequences, int max_queue,
                                  const std::string& prompt_lookup,
                                  const std::string& precision,
                                  const TinyModelOptions& model) {
  ServedModelOptions options;
  options.model_path = TestModelPath();
  ASSERT_TRUE(WriteTinyModel(options.model_path, model).ok());
  options.threads = {2, "--threads"};
  options.max_sequences = max_sequences;
  options.max_queue = max_queue;
  options.prompt_lookup = prompt_lookup;
  options.activations = precision;
  options.kv_cache = precision;
  options.max_step_tokens = 32;
  options.adapter_registry.folder = testing::TempDir();
  auto served = ServedModel::Load(options);
  ASSERT_TRUE(served.ok()) << served.status();
  served_ = *std::move(served);
}

}  // namespace onegrid::inference
