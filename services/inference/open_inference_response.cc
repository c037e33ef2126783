#include "services/inference/open_inference_response.h"

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/version.h"

namespace onegrid::inference {
namespace {

constexpr char kFinalParameter[] = "triton_final_response";
constexpr char kPlatform[] = "onegrid_gguf";

// In the words of OpenAI's API and of vLLM's backend.
std::string FinishReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::MAX_TOKENS:
    case v1::CONTEXT_FULL:
      return "length";
    default:
      return "stop";
  }
}

oip::DataType ConfigType(Datatype datatype) {
  switch (datatype) {
    case Datatype::kBool:
      return oip::TYPE_BOOL;
    case Datatype::kInt32:
      return oip::TYPE_INT32;
    case Datatype::kInt64:
      return oip::TYPE_INT64;
    case Datatype::kUint32:
      return oip::TYPE_UINT32;
    case Datatype::kUint64:
      return oip::TYPE_UINT64;
    case Datatype::kFp32:
      return oip::TYPE_FP32;
    case Datatype::kFp64:
      return oip::TYPE_FP64;
    case Datatype::kBytes:
      return oip::TYPE_STRING;
  }
  return oip::TYPE_INVALID;
}

// The elements of an output that belong to this part.
OutputElements ElementsOf(ModelOutput output, const InferPart& part) {
  switch (output) {
    case ModelOutput::kTextOutput:
      return std::vector<std::string>{part.text};
    case ModelOutput::kOutputIds:
      return part.token_ids;
    case ModelOutput::kOutputLogProbs:
      return part.logprobs;
    case ModelOutput::kFinishReason:
      return std::vector<std::string>{
          FinishReasonName(part.finished->reason())};
    case ModelOutput::kNumInputTokens:
      return std::vector<uint32_t>{
          static_cast<uint32_t>(part.finished->prompt_tokens())};
    case ModelOutput::kNumOutputTokens:
      return std::vector<uint32_t>{
          static_cast<uint32_t>(part.finished->completion_tokens())};
  }
  return std::vector<std::string>();
}

bool BelongsToTheEnd(ModelOutput output) {
  return output == ModelOutput::kFinishReason ||
         output == ModelOutput::kNumInputTokens ||
         output == ModelOutput::kNumOutputTokens;
}

}  // namespace

void Append(const v1::Delta& delta, InferPart* part) {
  part->text += delta.text();
  part->token_ids.insert(part->token_ids.end(), delta.token_ids().begin(),
                         delta.token_ids().end());
  part->logprobs.insert(part->logprobs.end(), delta.logprobs().begin(),
                        delta.logprobs().end());
}

oip::ModelInferResponse MakeInferResponse(const InferCall& call,
                                          absl::string_view model_name,
                                          const InferPart& part) {
  oip::ModelInferResponse response;
  response.set_model_name(std::string(model_name));
  response.set_model_version(std::string(kModelVersion));
  response.set_id(call.id);
  for (const ModelOutput output : call.outputs) {
    if (BelongsToTheEnd(output) && part.finished == nullptr) continue;
    for (const ModelOutputInfo& info : ModelOutputs()) {
      if (info.output != output) continue;
      AddOutput(info.name, ElementsOf(output, part), call.batched, call.raw,
                &response);
    }
  }
  return response;
}

void SetFinal(bool final, oip::ModelInferResponse* response) {
  (*response->mutable_parameters())[kFinalParameter].set_bool_param(final);
}

oip::ModelStreamInferResponse MakeStreamError(const absl::Status& status,
                                              absl::string_view model_name,
                                              const std::string& id) {
  oip::ModelStreamInferResponse response;
  // An empty message would be no error.
  response.set_error_message(status.message().empty()
                                 ? common::StatusCodeName(status.code())
                                 : std::string(status.message()));
  response.mutable_infer_response()->set_model_name(std::string(model_name));
  response.mutable_infer_response()->set_id(id);
  SetFinal(true, response.mutable_infer_response());
  return response;
}

oip::ServerMetadataResponse MakeServerMetadata() {
  oip::ServerMetadataResponse response;
  response.set_name("onegrid");
  response.set_version(common::kVersion);
  for (const char* extension :
       {"model_configuration", "model_repository", "statistics"}) {
    response.add_extensions(extension);
  }
  return response;
}

oip::ModelMetadataResponse MakeModelMetadata(const std::string& model_name) {
  oip::ModelMetadataResponse response;
  response.set_name(model_name);
  response.add_versions(std::string(kModelVersion));
  response.set_platform(kPlatform);
  for (const ModelInputInfo& info : ModelInputs()) {
    auto* input = response.add_inputs();
    input->set_name(std::string(info.name));
    input->set_datatype(std::string(DatatypeName(info.datatypes[0])));
    input->add_shape(info.list ? -1 : 1);
  }
  for (const ModelOutputInfo& info : ModelOutputs()) {
    auto* output = response.add_outputs();
    output->set_name(std::string(info.name));
    output->set_datatype(std::string(DatatypeName(info.datatype)));
    output->add_shape(info.list ? -1 : 1);
  }
  return response;
}

oip::ModelConfig MakeModelConfig(const std::string& model_name) {
  oip::ModelConfig config;
  config.set_name(model_name);
  config.set_platform(kPlatform);
  config.set_backend("onegrid");
  for (const ModelInputInfo& info : ModelInputs()) {
    oip::ModelInput* input = config.add_input();
    input->set_name(std::string(info.name));
    input->set_data_type(ConfigType(info.datatypes[0]));
    input->add_dims(info.list ? -1 : 1);
    // One of text_input and input_ids is always needed.
    input->set_optional(true);
  }
  for (const ModelOutputInfo& info : ModelOutputs()) {
    oip::ModelOutput* output = config.add_output();
    output->set_name(std::string(info.name));
    output->set_data_type(ConfigType(info.datatype));
    output->add_dims(info.list ? -1 : 1);
  }
  config.mutable_model_transaction_policy()->set_decoupled(true);
  return config;
}

oip::RepositoryIndexResponse MakeRepositoryIndex(
    const std::string& model_name) {
  oip::RepositoryIndexResponse response;
  auto* model = response.add_models();
  model->set_name(model_name);
  model->set_version(std::string(kModelVersion));
  model->set_state("READY");
  return response;
}

}  // namespace onegrid::inference
