// Generations on a tiny random model, for tests.
#ifndef SERVICES_INFERENCE_GENERATION_TESTING_H_
#define SERVICES_INFERENCE_GENERATION_TESTING_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "services/inference/call_context.h"
#include "services/inference/generation_service.h"
#include "services/inference/served_model.h"
#include "services/inference/tiny_model.h"

namespace onegrid::inference {

// All that a call says.
struct Generated {
  absl::Status status;
  v1::Started started;
  std::string text;
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<int32_t> top_ids;
  std::vector<float> top_logprobs;
  v1::Finished finished;
};

// Whether tokens and their log-probabilities are the same, bit for bit.
bool SaysTheSame(const Generated& a, const Generated& b);

// For max_tokens, end of sequence or not.
v1::GenerateRequest TextRequest(const std::string& text, int max_tokens);

Generated Generate(GenerationService& service,
                   const v1::GenerateRequest& request,
                   const CallContext& context = {});

// A file of the running test's own: tests of a suite may run in several
// processes.
std::string TestModelPath();

class GenerationServiceTest : public testing::Test {
 protected:
  void Start(int max_sequences = 4, int max_queue = 8,
             const std::string& prompt_lookup = "auto",
             const std::string& precision = "int8",
             const TinyModelOptions& model = {});
  GenerationService& service() { return served_->service(); }

  std::unique_ptr<ServedModel> served_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_GENERATION_TESTING_H_
