#include "services/inference/open_inference_response.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"

namespace onegrid::inference {
namespace {

using ::testing::ElementsAre;

InferCall CallFor(const std::vector<ModelOutput>& outputs) {
  InferCall call;
  call.id = std::string(1, '7');
  call.outputs = outputs;
  return call;
}

std::vector<std::string> Names(const oip::ModelInferResponse& response) {
  std::vector<std::string> names;
  for (const auto& output : response.outputs()) names.push_back(output.name());
  return names;
}

TEST(OpenInferenceResponseTest, EveryOutputOfTheEnd) {
  const InferCall call =
      CallFor({ModelOutput::kNumOutputTokens, ModelOutput::kFinishReason,
               ModelOutput::kTextOutput, ModelOutput::kOutputIds,
               ModelOutput::kOutputLogProbs, ModelOutput::kNumInputTokens});
  v1::Finished finished;
  finished.set_reason(v1::MAX_TOKENS);
  finished.set_prompt_tokens(3);
  finished.set_completion_tokens(2);
  InferPart part;
  v1::Delta delta;
  delta.set_text("a");
  delta.add_token_ids(5);
  delta.add_logprobs(-0.5);
  Append(delta, &part);
  Append(delta, &part);
  part.finished = &finished;
  const auto response = MakeInferResponse(call, "m", part);
  EXPECT_EQ(response.model_name(), "m");
  EXPECT_EQ(response.model_version(), "1");
  EXPECT_EQ(response.id(), "7");
  EXPECT_THAT(
      Names(response),
      ElementsAre("num_output_tokens", "finish_reason", "text_output",
                  "output_ids", "output_log_probs", "num_input_tokens"));
  EXPECT_THAT(response.outputs(0).contents().uint_contents(), ElementsAre(2));
  EXPECT_THAT(response.outputs(1).contents().bytes_contents(),
              ElementsAre("length"));
  EXPECT_THAT(response.outputs(2).contents().bytes_contents(),
              ElementsAre("aa"));
  EXPECT_THAT(response.outputs(3).contents().int_contents(), ElementsAre(5, 5));
  EXPECT_THAT(response.outputs(4).contents().fp32_contents(),
              ElementsAre(-0.5f, -0.5f));
  EXPECT_THAT(response.outputs(5).contents().uint_contents(), ElementsAre(3));
}

TEST(OpenInferenceResponseTest, ReasonsAreStopOrLength) {
  const InferCall call = CallFor({ModelOutput::kFinishReason});
  for (const auto& [reason, name] :
       std::vector<std::pair<v1::FinishReason, std::string>>{
           {v1::END_OF_SEQUENCE, "stop"},
           {v1::STOP_STRING, "stop"},
           {v1::STOP_TOKEN, "stop"},
           {v1::MAX_TOKENS, "length"},
           {v1::CONTEXT_FULL, "length"}}) {
    v1::Finished finished;
    finished.set_reason(reason);
    InferPart part;
    part.finished = &finished;
    EXPECT_THAT(MakeInferResponse(call, "m", part)
                    .outputs(0)
                    .contents()
                    .bytes_contents(),
                ElementsAre(name));
  }
}

TEST(OpenInferenceResponseTest, WhatBelongsToTheEndIsNotInEarlierParts) {
  const InferCall call =
      CallFor({ModelOutput::kFinishReason, ModelOutput::kTextOutput});
  EXPECT_THAT(Names(MakeInferResponse(call, "m", InferPart())),
              ElementsAre("text_output"));
}

TEST(OpenInferenceResponseTest, AStreamErrorNamesItsRequestAndIsItsLast) {
  const auto response =
      MakeStreamError(absl::InvalidArgumentError("why"), "m", "7");
  EXPECT_EQ(response.error_message(), "why");
  EXPECT_EQ(response.infer_response().id(), "7");
  EXPECT_TRUE(response.infer_response()
                  .parameters()
                  .at("triton_final_response")
                  .bool_param());
  EXPECT_EQ(MakeStreamError(absl::InternalError(""), "m", "").error_message(),
            "INTERNAL");
}

TEST(OpenInferenceResponseTest, MetadataAndConfigNameTheSameTensors) {
  const auto metadata = MakeModelMetadata("m");
  const auto config = MakeModelConfig("m");
  EXPECT_THAT(metadata.versions(), ElementsAre("1"));
  ASSERT_EQ(metadata.inputs_size(), config.input_size());
  for (int i = 0; i < metadata.inputs_size(); ++i) {
    EXPECT_EQ(metadata.inputs(i).name(), config.input(i).name());
    EXPECT_THAT(metadata.inputs(i).shape(),
                ElementsAre(config.input(i).dims(0)));
  }
  ASSERT_EQ(metadata.outputs_size(), config.output_size());
  EXPECT_EQ(metadata.inputs(0).datatype(), "BYTES");
  EXPECT_EQ(config.input(0).data_type(), oip::TYPE_STRING);
  EXPECT_TRUE(config.model_transaction_policy().decoupled());
  EXPECT_EQ(MakeRepositoryIndex("m").models(0).state(), "READY");
}

}  // namespace
}  // namespace onegrid::inference
