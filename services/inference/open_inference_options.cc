#include "services/inference/open_inference_options.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/json_depth.h"

namespace onegrid::inference {
namespace {

using Json = nlohmann::json;

constexpr int32_t kMaxInt32 = std::numeric_limits<int32_t>::max();
// The options that sampling_parameters may hold.
constexpr std::array<absl::string_view, 10> kSamplingNames = {
    "max_tokens", "temperature",        "top_p", "top_k",      "min_p",
    "seed",       "repetition_penalty", "stop",  "ignore_eos", "lora_name"};

absl::StatusOr<uint64_t> Seed(const InferOption& option) {
  if (const auto* value = std::get_if<uint64_t>(&option.value)) return *value;
  ASSIGN_OR_RETURN(const int64_t value,
                   IntegerOf(option, 0, std::numeric_limits<int64_t>::max()));
  return static_cast<uint64_t>(value);
}

// 0 stands for the default in v1::Sampling: where it is not a value,
// `zero_is_value` is false.
absl::StatusOr<float> Real(const InferOption& option, bool zero_is_value) {
  double value = 0;
  if (const auto* real = std::get_if<double>(&option.value)) {
    value = *real;
  } else if (const auto* integer = std::get_if<int64_t>(&option.value)) {
    value = static_cast<double>(*integer);
  } else if (const auto* integer = std::get_if<uint64_t>(&option.value)) {
    value = static_cast<double>(*integer);
  } else {
    return WrongTensor(option.what, "a number", "another type");
  }
  if (!(std::abs(value) <= std::numeric_limits<float>::max())) {
    return WrongTensor(option.what, "a finite number", absl::StrCat(value));
  }
  const float found = static_cast<float>(value);
  if (found == 0 && !zero_is_value) {
    return WrongTensor(option.what, "more than 0", absl::StrCat(value));
  }
  return found;
}

absl::StatusOr<std::string> Text(const InferOption& option) {
  if (const auto* value = std::get_if<absl::string_view>(&option.value)) {
    return std::string(*value);
  }
  return WrongTensor(option.what, "a text", "another type");
}

absl::Status SetSampling(const InferOption& option, v1::Sampling* sampling) {
  if (option.name == "temperature") {
    ASSIGN_OR_RETURN(const float value, Real(option, /*zero_is_value=*/true));
    sampling->set_temperature(value);
  } else if (option.name == "top_p") {
    ASSIGN_OR_RETURN(const float value, Real(option, /*zero_is_value=*/false));
    sampling->set_top_p(value);
  } else if (option.name == "min_p") {
    ASSIGN_OR_RETURN(const float value, Real(option, /*zero_is_value=*/true));
    sampling->set_min_p(value);
  } else if (option.name == "repetition_penalty") {
    ASSIGN_OR_RETURN(const float value, Real(option, /*zero_is_value=*/false));
    sampling->set_repetition_penalty(value);
  } else if (option.name == "top_k") {
    // -1 keeps all tokens, as 0 does.
    ASSIGN_OR_RETURN(const int64_t value, IntegerOf(option, -1, kMaxInt32));
    sampling->set_top_k(static_cast<int32_t>(std::max<int64_t>(value, 0)));
  } else {
    ASSIGN_OR_RETURN(const uint64_t value, Seed(option));
    sampling->set_seed(value);
  }
  return absl::OkStatus();
}

// Clients of vLLM's backend write numbers as texts.
absl::StatusOr<TensorElement> ElementOf(absl::string_view name,
                                        const std::string& what,
                                        const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number()) return value.get<double>();
  if (!value.is_string()) {
    return WrongTensor(what, "a value", value.type_name());
  }
  const std::string& text = value.get_ref<const std::string&>();
  if (name == "stop" || name == "lora_name") return absl::string_view(text);
  int64_t integer = 0;
  if (absl::SimpleAtoi(text, &integer)) return integer;
  double real = 0;
  if (absl::SimpleAtod(text, &real)) return real;
  return absl::string_view(text);
}

// Takes the members of a JSON object as options of their own.
absl::Status SetSamplingParameters(const InferOption& option, GivenNames* given,
                                   InferCall* call) {
  ASSIGN_OR_RETURN(const std::string text, Text(option));
  if (common::NestsDeeperThan(text, common::kJsonDepthMax)) {
    return WrongTensor(option.what, "a JSON object", "one too deep");
  }
  const Json object = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return WrongTensor(option.what, "a JSON object",
                       object.is_discarded() ? "no JSON" : object.type_name());
  }
  for (const auto& [key, value] : object.items()) {
    const std::string what = absl::StrCat(option.what, " ", Quoted(key));
    const auto name =
        std::find(kSamplingNames.begin(), kSamplingNames.end(), key);
    if (name == kSamplingNames.end()) {
      return WrongTensor(what, "a known option", "an unknown one");
    }
    if (!given->insert(*name).second) {
      return WrongTensor(what, "it once", "an input of that name as well");
    }
    const Json list =
        value.is_array() && key == "stop" ? value : Json::array({value});
    for (const Json& item : list) {
      ASSIGN_OR_RETURN(const TensorElement element,
                       ElementOf(*name, what, item));
      RETURN_IF_ERROR(SetOption({*name, what, element}, given, call));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int64_t> IntegerOf(const InferOption& option, int64_t least,
                                  int64_t most) {
  const std::string expected =
      absl::StrCat("an integer of ", least, "..", most);
  if (const auto* value = std::get_if<int64_t>(&option.value)) {
    if (*value >= least && *value <= most) return *value;
    return WrongTensor(option.what, expected, absl::StrCat(*value));
  }
  if (const auto* value = std::get_if<uint64_t>(&option.value)) {
    if (*value <= static_cast<uint64_t>(most) &&
        static_cast<int64_t>(*value) >= least) {
      return static_cast<int64_t>(*value);
    }
    return WrongTensor(option.what, expected, absl::StrCat(*value));
  }
  return WrongTensor(option.what, expected, "another type");
}

absl::StatusOr<bool> BooleanOf(const InferOption& option) {
  if (const auto* value = std::get_if<bool>(&option.value)) return *value;
  return WrongTensor(option.what, "true or false", "another type");
}

absl::Status SetOption(const InferOption& option, GivenNames* given,
                       InferCall* call) {
  v1::Stopping& stopping = *call->request.mutable_stopping();
  if (option.name == "text_input") {
    ASSIGN_OR_RETURN(*call->request.mutable_text(), Text(option));
  } else if (option.name == "max_tokens") {
    ASSIGN_OR_RETURN(const int64_t value, IntegerOf(option, 1, kMaxInt32));
    stopping.set_max_tokens(static_cast<int32_t>(value));
  } else if (option.name == "stop") {
    ASSIGN_OR_RETURN(*stopping.add_stop(), Text(option));
  } else if (option.name == "ignore_eos") {
    ASSIGN_OR_RETURN(const bool value, BooleanOf(option));
    stopping.set_ignore_eos(value);
  } else if (option.name == "lora_name") {
    ASSIGN_OR_RETURN(*call->request.mutable_adapter(), Text(option));
  } else if (option.name == "stream") {
    ASSIGN_OR_RETURN(call->stream, BooleanOf(option));
  } else if (option.name == "exclude_input_in_output") {
    ASSIGN_OR_RETURN(const bool value, BooleanOf(option));
    call->echo = !value;
  } else if (option.name == "sampling_parameters") {
    return SetSamplingParameters(option, given, call);
  } else {
    return SetSampling(option, call->request.mutable_sampling());
  }
  return absl::OkStatus();
}

}  // namespace onegrid::inference
