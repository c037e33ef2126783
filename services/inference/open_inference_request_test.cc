// Goal: what a request of the protocol means, and that nothing is taken for
// something else.
#include "services/inference/open_inference_request.h"

#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"

namespace onegrid::inference {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Request = oip::ModelInferRequest;

constexpr char kModel[] = "gemma";

Request::InferInputTensor* AddInput(const std::string& name,
                                    const std::string& datatype,
                                    const std::vector<int64_t>& shape,
                                    Request* request) {
  auto* input = request->add_inputs();
  input->set_name(name);
  input->set_datatype(datatype);
  input->mutable_shape()->Add(shape.begin(), shape.end());
  return input;
}

Request TextRequest(const std::string& text = "hello") {
  Request request;
  request.set_model_name(kModel);
  AddInput("text_input", "BYTES", {1}, &request)
      ->mutable_contents()
      ->add_bytes_contents(text);
  return request;
}

oip::InferParameter& Parameter(const std::string& name, Request* request) {
  return (*request->mutable_parameters())[name];
}

// The request must be refused with words that name what is wrong.
void ExpectError(const Request& request, const std::string& what,
                 const std::string& expected, const std::string& found) {
  const absl::Status status = ReadInferRequest(request, kModel).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << what;
  EXPECT_EQ(common::ErrorReason(status), "INVALID_REQUEST") << what;
  const auto metadata = common::ErrorMetadata(status);
  EXPECT_THAT(metadata.at("what"), HasSubstr(what));
  EXPECT_THAT(metadata.at("expected"), HasSubstr(expected)) << what;
  EXPECT_THAT(metadata.at("found"), HasSubstr(found)) << what;
}

TEST(OpenInferenceRequestTest, TextAloneTakesTheDefaults) {
  Request request = TextRequest();
  request.set_id("7");
  const auto call = ReadInferRequest(request, kModel);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->id, "7");
  EXPECT_EQ(call->request.text(), "hello");
  EXPECT_EQ(call->request.sampling().temperature(), 0);
  EXPECT_FALSE(call->stream);
  EXPECT_FALSE(call->raw);
  EXPECT_FALSE(call->batched);
  EXPECT_FALSE(call->request.logprobs());
  EXPECT_EQ(call->timeout, absl::InfiniteDuration());
  EXPECT_THAT(call->outputs, ElementsAre(ModelOutput::kTextOutput));
}

TEST(OpenInferenceRequestTest, TensorsSetEveryOption) {
  Request request = TextRequest();
  AddInput("max_tokens", "INT32", {1}, &request)
      ->mutable_contents()
      ->add_int_contents(9);
  AddInput("temperature", "FP32", {1}, &request)
      ->mutable_contents()
      ->add_fp32_contents(0.5);
  AddInput("top_p", "FP64", {1, 1}, &request)
      ->mutable_contents()
      ->add_fp64_contents(0.25);
  AddInput("top_k", "UINT32", {1}, &request)
      ->mutable_contents()
      ->add_uint_contents(40);
  AddInput("seed", "UINT64", {1}, &request)
      ->mutable_contents()
      ->add_uint64_contents(~uint64_t{0});
  auto* stop = AddInput("stop", "BYTES", {1, 2}, &request)->mutable_contents();
  stop->add_bytes_contents("\n");
  stop->add_bytes_contents("|");
  AddInput("ignore_eos", "BOOL", {1}, &request)
      ->mutable_contents()
      ->add_bool_contents(true);
  AddInput("stream", "BOOL", {1}, &request)
      ->mutable_contents()
      ->add_bool_contents(true);
  const auto call = ReadInferRequest(request, kModel);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->request.stopping().max_tokens(), 9);
  EXPECT_EQ(call->request.sampling().temperature(), 0.5f);
  EXPECT_EQ(call->request.sampling().top_p(), 0.25f);
  EXPECT_EQ(call->request.sampling().top_k(), 40);
  EXPECT_EQ(call->request.sampling().seed(), ~uint64_t{0});
  EXPECT_THAT(call->request.stopping().stop(), ElementsAre("\n", "|"));
  EXPECT_TRUE(call->request.stopping().ignore_eos());
  EXPECT_TRUE(call->stream);
}

TEST(OpenInferenceRequestTest, ParametersSetTheSameOptions) {
  Request request = TextRequest();
  Parameter("max_tokens", &request).set_int64_param(9);
  Parameter("temperature", &request).set_double_param(0.5);
  Parameter("top_p", &request).set_int64_param(1);
  Parameter("top_k", &request).set_int64_param(-1);
  Parameter("seed", &request).set_uint64_param(7);
  Parameter("stop", &request).set_string_param("\n");
  Parameter("min_p", &request).set_double_param(0.125);
  Parameter("repetition_penalty", &request).set_double_param(1.5);
  Parameter("lora_name", &request).set_string_param("one");
  Parameter("timeout", &request).set_int64_param(1500);
  Parameter("triton_enable_empty_final_response", &request)
      .set_bool_param(true);
  const auto call = ReadInferRequest(request, kModel);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->request.stopping().max_tokens(), 9);
  EXPECT_EQ(call->request.sampling().temperature(), 0.5f);
  EXPECT_EQ(call->request.sampling().top_p(), 1);
  EXPECT_EQ(call->request.sampling().top_k(), 0);
  EXPECT_EQ(call->request.sampling().seed(), 7u);
  EXPECT_EQ(call->request.sampling().min_p(), 0.125f);
  EXPECT_EQ(call->request.sampling().repetition_penalty(), 1.5f);
  EXPECT_THAT(call->request.stopping().stop(), ElementsAre("\n"));
  EXPECT_EQ(call->request.adapter(), "one");
  EXPECT_EQ(call->timeout, absl::Microseconds(1500));
  EXPECT_TRUE(call->empty_final_response);
}

TEST(OpenInferenceRequestTest, RawInputsAskForRawOutputs) {
  Request request;
  request.set_model_name(kModel);
  AddInput("input_ids", "INT64", {1, 2}, &request);
  const int64_t ids[] = {2, 300};
  request.add_raw_input_contents(
      std::string(reinterpret_cast<const char*>(ids), sizeof(ids)));
  const auto call = ReadInferRequest(request, kModel);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_THAT(call->request.token_ids().ids(), ElementsAre(2, 300));
  EXPECT_TRUE(call->raw);
  EXPECT_TRUE(call->batched);

  request.add_raw_input_contents("");
  ExpectError(request, "raw_input_contents", "one for each of 1 inputs", "2");
}

TEST(OpenInferenceRequestTest, OutputsComeInTheOrderAsked) {
  Request request = TextRequest();
  request.add_outputs()->set_name("output_log_probs");
  request.add_outputs()->set_name("text_output");
  const auto call = ReadInferRequest(request, kModel);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_THAT(call->outputs, ElementsAre(ModelOutput::kOutputLogProbs,
                                         ModelOutput::kTextOutput));
  EXPECT_TRUE(call->request.logprobs());

  request.add_outputs()->set_name("text_output");
  ExpectError(request, "output \"text_output\"", "it once", "it twice");
  request.mutable_outputs(2)->set_name("logits");
  ExpectError(request, "output \"logits\"", "an output of the model",
              "unknown");
  request.mutable_outputs(2)->set_name("output_ids");
  (*request.mutable_outputs(2)->mutable_parameters())["classification"]
      .set_int64_param(3);
  ExpectError(request, "output \"output_ids\"", "no such", "classification");
}

TEST(OpenInferenceRequestTest, AnotherModelOrVersionIsNotFound) {
  const struct {
    const char* name;
    const char* version;
    bool ok;
  } cases[] = {{"gemma", "", true},
               {"gemma", "1", true},
               {"gemma", "2", false},
               {"", "", false},
               {"other", "1", false}};
  for (const auto& c : cases) {
    const absl::Status status = CheckModel(c.name, c.version, kModel);
    EXPECT_EQ(status.ok(), c.ok) << c.name << " " << c.version;
    if (c.ok) continue;
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(common::ErrorReason(status), "MODEL_NOT_FOUND");
    EXPECT_THAT(common::ErrorMetadata(status).at("expected"),
                HasSubstr(kModel));
  }
}

TEST(OpenInferenceRequestTest, APromptIsGivenOnce) {
  Request request;
  request.set_model_name(kModel);
  ExpectError(request, "inputs", "text_input or input_ids", "neither");
  request = TextRequest();
  AddInput("input_ids", "INT32", {1}, &request)
      ->mutable_contents()
      ->add_int_contents(2);
  ExpectError(request, "inputs", "text_input or input_ids", "both");
  request = TextRequest();
  *request.add_inputs() = request.inputs(0);
  ExpectError(request, "input \"text_input\"", "it once", "it twice");
  request = TextRequest();
  Parameter("text_input", &request).set_string_param("a");
  ExpectError(request, "parameter \"text_input\"", "it once", "as well");
}

TEST(OpenInferenceRequestTest, UnknownNamesAreRefused) {
  Request request = TextRequest();
  AddInput("max_token", "INT32", {1}, &request);
  ExpectError(request, "input \"max_token\"", "an input", "unknown");
  for (const char* name : {"max_token", "priority", "sequence_id", "input_ids",
                           "sequence_start", ""}) {
    request = TextRequest();
    Parameter(name, &request).set_int64_param(1);
    ExpectError(request, "parameter \"" + std::string(name), "a parameter",
                "unknown");
  }
}

TEST(OpenInferenceRequestTest, ShapesThatAreNotOneElementOrOneListAreRefused) {
  Request request = TextRequest();
  request.mutable_inputs(0)->clear_shape();
  request.mutable_inputs(0)->add_shape(2);
  request.mutable_inputs(0)->mutable_contents()->add_bytes_contents("b");
  ExpectError(request, "input \"text_input\"", "[1] or [1, 1]", "0 of 2");
  request = TextRequest();
  request.mutable_inputs(0)->set_shape(0, 0);
  request.mutable_inputs(0)->clear_contents();
  ExpectError(request, "input \"text_input\"", "[1] or [1, 1]", "0 of 0");
  request = TextRequest();
  AddInput("stop", "BYTES", {2, 1}, &request)
      ->mutable_contents()
      ->add_bytes_contents("a");
  request.mutable_inputs(1)->mutable_contents()->add_bytes_contents("b");
  ExpectError(request, "input \"stop\"", "[n] or [1, n]", "0 of 2");
}

TEST(OpenInferenceRequestTest, ValuesThatCannotBeMeantAreRefused) {
  const double kInfinity = std::numeric_limits<double>::infinity();
  Request request = TextRequest();
  const auto expect = [&request](const std::string& name,
                                 const std::string& expected,
                                 const std::string& found) {
    ExpectError(request, "parameter \"" + name, expected, found);
    request.clear_parameters();
  };
  Parameter("max_tokens", &request).set_int64_param(0);
  expect("max_tokens", "1..2147483647", "0");
  Parameter("max_tokens", &request).set_uint64_param(0);
  expect("max_tokens", "1..2147483647", "0");
  Parameter("max_tokens", &request).set_int64_param(int64_t{1} << 31);
  expect("max_tokens", "1..2147483647", "2147483648");
  Parameter("max_tokens", &request).set_uint64_param(~uint64_t{0});
  expect("max_tokens", "1..2147483647", "18446744073709551615");
  Parameter("max_tokens", &request).set_double_param(3);
  expect("max_tokens", "an integer", "another type");
  Parameter("max_tokens", &request);
  expect("max_tokens", "a value", "none");
  Parameter("top_k", &request).set_int64_param(-2);
  expect("top_k", "-1..", "-2");
  Parameter("top_p", &request).set_double_param(0);
  expect("top_p", "more than 0", "0");
  Parameter("repetition_penalty", &request).set_double_param(1e-200);
  expect("repetition_penalty", "more than 0", "1e-200");
  Parameter("temperature", &request).set_double_param(kInfinity);
  expect("temperature", "finite", "inf");
  Parameter("temperature", &request).set_double_param(-kInfinity / kInfinity);
  expect("temperature", "finite", "nan");
  Parameter("temperature", &request).set_double_param(1e300);
  expect("temperature", "finite", "1e+300");
  Parameter("temperature", &request).set_string_param("0.5");
  expect("temperature", "a number", "another type");
  Parameter("seed", &request).set_int64_param(-1);
  expect("seed", "0..", "-1");
  Parameter("stream", &request).set_int64_param(1);
  expect("stream", "true or false", "another type");
  Parameter("stop", &request).set_bool_param(true);
  expect("stop", "a text", "another type");
  Parameter("timeout", &request).set_int64_param(-5);
  expect("timeout", "0..", "-5");
}

TEST(OpenInferenceRequestTest, SamplingParametersAreOptionsInJson) {
  Request request = TextRequest();
  Parameter("sampling_parameters", &request)
      .set_string_param(
          R"({"temperature": "0.5", "top_p": 0.25, "top_k": "40", "seed": 7,
              "max_tokens": 9, "stop": ["a", "1"], "ignore_eos": true,
              "lora_name": "7"})");
  const auto call = ReadInferRequest(request, kModel);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->request.sampling().temperature(), 0.5f);
  EXPECT_EQ(call->request.sampling().top_p(), 0.25f);
  EXPECT_EQ(call->request.sampling().top_k(), 40);
  EXPECT_EQ(call->request.sampling().seed(), 7u);
  EXPECT_EQ(call->request.stopping().max_tokens(), 9);
  EXPECT_THAT(call->request.stopping().stop(), ElementsAre("a", "1"));
  EXPECT_TRUE(call->request.stopping().ignore_eos());
  EXPECT_EQ(call->request.adapter(), "7");

  const auto expect = [&request](const std::string& json,
                                 const std::string& expected,
                                 const std::string& found) {
    Parameter("sampling_parameters", &request).set_string_param(json);
    ExpectError(request, "sampling_parameters", expected, found);
  };
  expect("", "a JSON object", "no JSON");
  expect("{", "a JSON object", "no JSON");
  expect("[]", "a JSON object", "array");
  expect(std::string(100000, '['), "a JSON object", "too deep");
  expect(R"({"best_of": 2})", "a known option", "unknown");
  expect(R"({"text_input": "a"})", "a known option", "unknown");
  expect(R"({"sampling_parameters": "{}"})", "a known option", "unknown");
  expect(R"({"top_p": "much"})", "a number", "another type");
  expect(R"({"top_p": null})", "a value", "null");
  expect(R"({"top_p": [0.5]})", "a value", "array");
  expect(R"({"stop": [["a"]]})", "a value", "array");
  expect(R"({"max_tokens": 0})", "1..", "0");
  expect(R"({"temperature": "nan"})", "finite", "nan");
  Parameter("max_tokens", &request).set_int64_param(5);
  expect(R"({"max_tokens": 5})", "it once", "as well");
}

TEST(OpenInferenceRequestTest, TheInputIsPutFirstOnlyWhereThatIsAText) {
  Request request = TextRequest();
  EXPECT_FALSE(ReadInferRequest(request, kModel)->echo);
  Parameter("exclude_input_in_output", &request).set_bool_param(true);
  EXPECT_FALSE(ReadInferRequest(request, kModel)->echo);
  Parameter("exclude_input_in_output", &request).set_bool_param(false);
  EXPECT_TRUE(ReadInferRequest(request, kModel)->echo);
  Parameter("stream", &request).set_bool_param(true);
  ExpectError(request, "exclude_input_in_output", "true for a stream", "false");
}

TEST(OpenInferenceRequestTest, TokenIdsFitInt32) {
  Request request;
  request.set_model_name(kModel);
  auto* ids = AddInput("input_ids", "INT64", {2}, &request)->mutable_contents();
  ids->add_int64_contents(2);
  ids->add_int64_contents(int64_t{1} << 40);
  ExpectError(request, "input \"input_ids\"", "0..2147483647", "1099511627776");
  ids->set_int64_contents(1, -1);
  ExpectError(request, "input \"input_ids\"", "0..2147483647", "-1");
}

}  // namespace
}  // namespace onegrid::inference
