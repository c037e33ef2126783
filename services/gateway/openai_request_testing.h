// Bodies of the API's requests, for tests.
#ifndef SERVICES_GATEWAY_OPENAI_REQUEST_TESTING_H_
#define SERVICES_GATEWAY_OPENAI_REQUEST_TESTING_H_

#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/gateway/openai_request.h"

namespace onegrid::gateway {

// A body with `fields` beside those that must be there.
inline std::string Completion(const std::string& fields) {
  return absl::StrCat(R"({"model":"m","prompt":"p")", fields.empty() ? "" : ",",
                      fields, "}");
}
inline std::string Chat(const std::string& fields) {
  return absl::StrCat(
      R"({"model":"m","messages":[{"role":"user","content":"u"}])",
      fields.empty() ? "" : ",", fields, "}");
}
inline std::string ChatOf(const std::string& messages) {
  return absl::StrCat(R"({"model":"m","messages":)", messages, "}");
}

inline CompletionRequest Parsed(
    std::variant<CompletionRequest, ApiError> result) {
  if (const auto* error = std::get_if<ApiError>(&result)) {
    ADD_FAILURE() << error->message;
    return {};
  }
  return std::get<CompletionRequest>(std::move(result));
}

inline ApiError ErrorOf(std::variant<CompletionRequest, ApiError> result) {
  if (std::holds_alternative<CompletionRequest>(result)) {
    ADD_FAILURE() << "was taken";
    return {};
  }
  return std::get<ApiError>(std::move(result));
}

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_OPENAI_REQUEST_TESTING_H_
