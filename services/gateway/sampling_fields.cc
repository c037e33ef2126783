#include "services/gateway/sampling_fields.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/gateway/openai_request.h"

namespace onegrid::gateway {
namespace {

using nlohmann::json;

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
constexpr double kMaxBias = 100;
constexpr size_t kShownKeyBytes = 16;

void ReadSeed(JsonFields& fields, std::optional<uint64_t>* out) {
  const json* seed = fields.Find("seed");
  if (seed == nullptr) return;
  if (!seed->is_number_integer()) {
    return fields.Fail(InvalidField("seed", "seed is not an integer"));
  }
  *out = seed->is_number_unsigned()
             ? seed->get<uint64_t>()
             : static_cast<uint64_t>(seed->get<int64_t>());
}

// One entry of logit_bias; its problem, if it has one.
std::string ReadBias(const std::string& key, const json& value,
                     v1::Sampling* sampling) {
  int32_t token = 0;
  // Only the usual spelling, so that no token is there twice.
  if (!absl::SimpleAtoi(key, &token) || token < 0 ||
      absl::StrCat(token) != key) {
    return absl::StrCat("logit_bias has the key \"",
                        key.substr(0, kShownKeyBytes),
                        "\", expected token ids");
  }
  if (!value.is_number()) {
    return absl::StrCat("logit_bias of ", key, " is a ", value.type_name(),
                        ", expected a number");
  }
  const double bias = value.get<double>();
  if (!(bias >= -kMaxBias && bias <= kMaxBias)) {
    return absl::StrCat("logit_bias of ", key, " is ", value.dump(),
                        ", expected -100..100");
  }
  (*sampling->mutable_logit_bias())[token] = static_cast<float>(bias);
  return "";
}

void ReadLogitBias(JsonFields& fields, v1::Sampling* sampling) {
  constexpr char kName[] = "logit_bias";
  const json* bias = fields.Find(kName);
  if (bias == nullptr) return;
  if (!bias->is_object()) {
    return fields.Fail(
        InvalidField(kName, absl::StrCat("logit_bias is a ", bias->type_name(),
                                         ", expected an object of token ids")));
  }
  if (bias->size() > kMaxLogitBias) {
    return fields.Fail(InvalidField(
        kName, absl::StrCat("logit_bias has ", bias->size(),
                            " entries, expected at most ", kMaxLogitBias)));
  }
  for (const auto& [key, value] : bias->items()) {
    const std::string problem = ReadBias(key, value, sampling);
    if (!problem.empty()) return fields.Fail(InvalidField(kName, problem));
  }
}

}  // namespace

void ReadSampling(JsonFields& fields, v1::Sampling* sampling,
                  std::optional<uint64_t>* seed) {
  float temperature = 1, top_p = 1, min_p = 0, repetition_penalty = 1;
  float presence_penalty = 0, frequency_penalty = 0;
  int64_t top_k = 0;
  fields.Read("temperature", 0, 10, /*above_min=*/false, &temperature);
  fields.Read("top_p", 0, 1, /*above_min=*/true, &top_p);
  fields.Read("min_p", 0, 1, /*above_min=*/false, &min_p);
  fields.Read("repetition_penalty", 0.01, 10, /*above_min=*/false,
              &repetition_penalty);
  fields.Read("presence_penalty", -2, 2, /*above_min=*/false,
              &presence_penalty);
  fields.Read("frequency_penalty", -2, 2, /*above_min=*/false,
              &frequency_penalty);
  // -1 is how other servers spell "all".
  fields.Read("top_k", -1, kInt32Max, &top_k);
  sampling->set_temperature(temperature);
  sampling->set_top_p(top_p);
  sampling->set_min_p(min_p);
  sampling->set_repetition_penalty(repetition_penalty);
  sampling->set_presence_penalty(presence_penalty);
  sampling->set_frequency_penalty(frequency_penalty);
  sampling->set_top_k(static_cast<int32_t>(top_k < 0 ? 0 : top_k));
  ReadLogitBias(fields, sampling);
  ReadSeed(fields, seed);
}

}  // namespace onegrid::gateway
