#include "services/inference/open_inference_request.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"

namespace onegrid::inference {
namespace {

absl::Status SetInputIds(const std::string& what, const InputTensor& tensor,
                         InferCall* call) {
  auto* ids = call->request.mutable_token_ids()->mutable_ids();
  ids->Reserve(static_cast<int>(tensor.elements.size()));
  for (const TensorElement& element : tensor.elements) {
    ASSIGN_OR_RETURN(const int64_t id,
                     IntegerOf({"input_ids", what, element}, 0,
                               std::numeric_limits<int32_t>::max()));
    ids->Add(static_cast<int32_t>(id));
  }
  return absl::OkStatus();
}

const ModelInputInfo* FindInput(absl::string_view name) {
  for (const ModelInputInfo& info : ModelInputs()) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

// All dimensions but the last must be 1; of one element, that too.
absl::Status CheckLayout(const std::string& what, const ModelInputInfo& info,
                         const InputTensor& tensor) {
  for (size_t i = 0; i + (info.list ? 1 : 0) < tensor.shape.size(); ++i) {
    if (tensor.shape[i] != 1) {
      return WrongTensor(
          what, info.list ? "shape [n] or [1, n]" : "shape [1] or [1, 1]",
          absl::StrCat("dimension ", i, " of ", tensor.shape[i]));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadInput(const oip::ModelInferRequest::InferInputTensor& input,
                       const std::string* raw, GivenNames* given,
                       InferCall* call) {
  const std::string what = absl::StrCat("input ", Quoted(input.name()));
  const ModelInputInfo* info = FindInput(input.name());
  if (info == nullptr) {
    return WrongTensor(what, "an input of the model", "an unknown one");
  }
  ASSIGN_OR_RETURN(const InputTensor tensor,
                   ReadTensor(input, raw, info->datatypes));
  RETURN_IF_ERROR(CheckLayout(what, *info, tensor));
  if (info->name == "text_input" || info->name == "input_ids") {
    call->batched = tensor.shape.size() > 1;
  }
  if (info->name == "input_ids") return SetInputIds(what, tensor, call);
  for (const TensorElement& element : tensor.elements) {
    RETURN_IF_ERROR(SetOption({info->name, what, element}, given, call));
  }
  return absl::OkStatus();
}

absl::Status ReadInputs(const oip::ModelInferRequest& request,
                        GivenNames* given, InferCall* call) {
  call->raw = request.raw_input_contents_size() > 0;
  if (call->raw && request.raw_input_contents_size() != request.inputs_size()) {
    return WrongTensor(
        "raw_input_contents",
        absl::StrCat("one for each of ", request.inputs_size(), " inputs"),
        absl::StrCat(request.raw_input_contents_size()));
  }
  for (int i = 0; i < request.inputs_size(); ++i) {
    const auto& input = request.inputs(i);
    if (!given->insert(input.name()).second) {
      return WrongTensor(absl::StrCat("input ", Quoted(input.name())),
                         "it once", "it twice");
    }
    RETURN_IF_ERROR(
        ReadInput(input, call->raw ? &request.raw_input_contents(i) : nullptr,
                  given, call));
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorElement> ParameterValue(
    const std::string& what, const oip::InferParameter& parameter) {
  switch (parameter.parameter_choice_case()) {
    case oip::InferParameter::kBoolParam:
      return parameter.bool_param();
    case oip::InferParameter::kInt64Param:
      return int64_t{parameter.int64_param()};
    case oip::InferParameter::kStringParam:
      return absl::string_view(parameter.string_param());
    case oip::InferParameter::kDoubleParam:
      return parameter.double_param();
    case oip::InferParameter::kUint64Param:
      return uint64_t{parameter.uint64_param()};
    case oip::InferParameter::PARAMETER_CHOICE_NOT_SET:
      break;
  }
  return WrongTensor(what, "a value", "none");
}

absl::Status ReadParameters(const oip::ModelInferRequest& request,
                            GivenNames* given, InferCall* call) {
  // In an order that does not change from one run to the next.
  std::map<absl::string_view, const oip::InferParameter*> parameters;
  for (const auto& [name, parameter] : request.parameters()) {
    parameters[name] = &parameter;
  }
  for (const auto& [name, parameter] : parameters) {
    const std::string what = absl::StrCat("parameter ", Quoted(name));
    ASSIGN_OR_RETURN(const TensorElement value,
                     ParameterValue(what, *parameter));
    const InferOption option = {name, what, value};
    if (name == "triton_enable_empty_final_response") {
      ASSIGN_OR_RETURN(call->empty_final_response, BooleanOf(option));
      continue;
    }
    if (name == "timeout") {  // in microseconds; 0 is none
      ASSIGN_OR_RETURN(
          const int64_t timeout_us,
          IntegerOf(option, 0, std::numeric_limits<int64_t>::max()));
      if (timeout_us > 0) call->timeout = absl::Microseconds(timeout_us);
      continue;
    }
    const ModelInputInfo* info = FindInput(name);
    if (info == nullptr || info->name == "input_ids") {
      return WrongTensor(what, "a parameter of the model", "an unknown one");
    }
    if (!given->insert(info->name).second) {
      return WrongTensor(what, "it once", "an input of that name as well");
    }
    RETURN_IF_ERROR(SetOption({info->name, what, value}, given, call));
  }
  return absl::OkStatus();
}

absl::Status ReadOutputs(const oip::ModelInferRequest& request,
                         InferCall* call) {
  for (const auto& output : request.outputs()) {
    const std::string what = absl::StrCat("output ", Quoted(output.name()));
    for (const char* refused : {"classification", "shared_memory_region"}) {
      if (output.parameters().contains(refused)) {
        return WrongTensor(what, "no such parameter", refused);
      }
    }
    const auto infos = ModelOutputs();
    const auto info = std::find_if(
        infos.begin(), infos.end(),
        [&](const ModelOutputInfo& i) { return i.name == output.name(); });
    if (info == infos.end()) {
      return WrongTensor(what, "an output of the model", "an unknown one");
    }
    if (std::count(call->outputs.begin(), call->outputs.end(), info->output)) {
      return WrongTensor(what, "it once", "it twice");
    }
    call->outputs.push_back(info->output);
    if (info->output == ModelOutput::kOutputLogProbs) {
      call->request.set_logprobs(true);
    }
  }
  if (call->outputs.empty()) call->outputs = {ModelOutput::kTextOutput};
  return absl::OkStatus();
}

}  // namespace

absl::Span<const ModelInputInfo> ModelInputs() {
  static const auto& inputs = *new std::vector<ModelInputInfo>{
      {"text_input", {Datatype::kBytes}, false},
      {"input_ids", {Datatype::kInt32, Datatype::kInt64}, true},
      {"max_tokens",
       {Datatype::kInt32, Datatype::kInt64, Datatype::kUint32},
       false},
      {"temperature", {Datatype::kFp32, Datatype::kFp64}, false},
      {"top_p", {Datatype::kFp32, Datatype::kFp64}, false},
      {"top_k", {Datatype::kInt32, Datatype::kInt64, Datatype::kUint32}, false},
      {"min_p", {Datatype::kFp32, Datatype::kFp64}, false},
      {"repetition_penalty", {Datatype::kFp32, Datatype::kFp64}, false},
      {"seed",
       {Datatype::kUint64, Datatype::kInt64, Datatype::kUint32,
        Datatype::kInt32},
       false},
      {"stop", {Datatype::kBytes}, true},
      {"ignore_eos", {Datatype::kBool}, false},
      // An adapter that is loaded; empty: none.
      {"lora_name", {Datatype::kBytes}, false},
      {"stream", {Datatype::kBool}, false},
      // Those of vLLM's backend: a JSON object of the options above, numbers as
      // texts too; and whether text_output is to begin with text_input (false).
      {"sampling_parameters", {Datatype::kBytes}, false},
      {"exclude_input_in_output", {Datatype::kBool}, false},
  };
  return inputs;
}

absl::Span<const ModelOutputInfo> ModelOutputs() {
  static constexpr ModelOutputInfo kOutputs[] = {
      {ModelOutput::kTextOutput, "text_output", Datatype::kBytes, false},
      {ModelOutput::kOutputIds, "output_ids", Datatype::kInt32, true},
      {ModelOutput::kOutputLogProbs, "output_log_probs", Datatype::kFp32, true},
      {ModelOutput::kFinishReason, "finish_reason", Datatype::kBytes, false},
      {ModelOutput::kNumInputTokens, "num_input_tokens", Datatype::kUint32,
       false},
      {ModelOutput::kNumOutputTokens, "num_output_tokens", Datatype::kUint32,
       false},
  };
  return kOutputs;
}

absl::Status CheckModel(absl::string_view name, absl::string_view version,
                        absl::string_view model_name) {
  if (name == model_name && (version.empty() || version == kModelVersion)) {
    return absl::OkStatus();
  }
  const std::string expected =
      absl::StrCat(Quoted(model_name), " in version \"", kModelVersion, "\"");
  const std::string found =
      version.empty()
          ? Quoted(name)
          : absl::StrCat(Quoted(name), " in version ", Quoted(version));
  return common::MakeError(
      absl::StatusCode::kNotFound, "MODEL_NOT_FOUND",
      absl::StrCat("model: expected ", expected, ", found ", found),
      {{"expected", expected}, {"found", found}});
}

absl::StatusOr<InferCall> ReadInferRequest(
    const oip::ModelInferRequest& request, absl::string_view model_name) {
  RETURN_IF_ERROR(
      CheckModel(request.model_name(), request.model_version(), model_name));
  InferCall call;
  call.id = request.id();
  GivenNames given;
  RETURN_IF_ERROR(ReadInputs(request, &given, &call));
  RETURN_IF_ERROR(ReadParameters(request, &given, &call));
  RETURN_IF_ERROR(ReadOutputs(request, &call));
  const size_t prompts = given.count("text_input") + given.count("input_ids");
  if (prompts != 1) {
    return WrongTensor("inputs", "text_input or input_ids",
                       prompts == 0 ? "neither" : "both");
  }
  if (call.echo && (call.stream || !call.request.has_text())) {
    return WrongTensor("\"exclude_input_in_output\"",
                       "true for a stream and for input_ids", "false");
  }
  return call;
}

}  // namespace onegrid::inference
