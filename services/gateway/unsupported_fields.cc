#include "services/gateway/unsupported_fields.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace onegrid::gateway {
namespace {

using nlohmann::json;

// Whether a value asks for nothing: false, 0, "", [] or {}.
bool IsNeutral(const json& value) {
  switch (value.type()) {
    case json::value_t::boolean:
      return !value.get<bool>();
    case json::value_t::number_integer:
    case json::value_t::number_unsigned:
    case json::value_t::number_float:
      return value.get<double>() == 0;
    case json::value_t::string:
      return value.get_ref<const std::string&>().empty();
    default:
      return value.empty();
  }
}

// Each changes the answer whenever it is not neutral. The last row is of
// other servers of this API.
constexpr const char* kRefused[] = {"suffix",          "audio",
                                    "guided_grammar",  "min_tokens",
                                    "bad_words",       "allowed_token_ids",
                                    "prompt_logprobs", "use_beam_search"};

// Calls are not among what an output can be held to: a model may call a tool,
// but need not.
void RefuseForcedCall(JsonFields& fields, const char* name) {
  const json* choice = fields.Find(name);
  if (choice == nullptr || *choice == "auto" || *choice == "none") return;
  fields.Fail(UnsupportedField(
      name, absl::StrCat(name,
                         " asks for a call, which cannot be forced; only "
                         "\"auto\" and \"none\" are taken")));
}

}  // namespace

void RefuseUnsupported(JsonFields& fields) {
  for (const char* name : kRefused) {
    const json* value = fields.Find(name);
    if (value == nullptr || IsNeutral(*value)) continue;
    fields.Fail(
        UnsupportedField(name, absl::StrCat(name, " is not supported")));
  }
  const json* best_of = fields.Find("best_of");
  if (best_of != nullptr && *best_of != 1) {
    fields.Fail(UnsupportedField("best_of",
                                 "best_of is not supported, other than as 1"));
  }
  const json* parallel = fields.Find("parallel_tool_calls");
  const json* tools = fields.Find("tools");
  if (parallel != nullptr && *parallel == false && tools != nullptr &&
      !tools->empty()) {
    fields.Fail(UnsupportedField(
        "parallel_tool_calls",
        "parallel_tool_calls is false, but how many calls the model makes "
        "cannot be limited"));
  }
  RefuseForcedCall(fields, "tool_choice");
  RefuseForcedCall(fields, "function_call");
}

}  // namespace onegrid::gateway
