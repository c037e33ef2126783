#include "services/gateway/openai_error.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "services/common/error_info.h"

namespace onegrid::gateway {
namespace {

using absl::StatusCode;
using common::MakeError;

TEST(OpenAiErrorTest, CodesOfTheBackendBecomeHttpStatuses) {
  const struct {
    StatusCode code;
    int http_status;
    const char* type;
  } cases[] = {
      {StatusCode::kInvalidArgument, 400, "invalid_request_error"},
      {StatusCode::kFailedPrecondition, 400, "invalid_request_error"},
      {StatusCode::kResourceExhausted, 429, "rate_limit_error"},
      {StatusCode::kCancelled, 499, "server_error"},
      {StatusCode::kUnavailable, 503, "server_error"},
      {StatusCode::kDeadlineExceeded, 504, "server_error"},
      {StatusCode::kInternal, 500, "server_error"},
      {StatusCode::kUnimplemented, 500, "server_error"},
      {StatusCode::kDataLoss, 500, "server_error"},
  };
  for (const auto& c : cases) {
    const ApiError error = FromStatus(MakeError(c.code, "A_REASON", "words"));
    EXPECT_EQ(error.http_status, c.http_status);
    EXPECT_EQ(error.type, c.type);
    EXPECT_EQ(error.code, "a_reason");
    EXPECT_EQ(error.message, "words");
    EXPECT_EQ(error.retry_after_seconds, c.http_status == 429 ? 1 : 0);
  }
}

TEST(OpenAiErrorTest, RetryAfterIsWhatTheBackendAsksFor) {
  const auto retry = [](const char* seconds) {
    return FromStatus(MakeError(StatusCode::kResourceExhausted, "QUEUE_FULL",
                                "full",
                                {{std::string(kRetrySecondsKey), seconds}}))
        .retry_after_seconds;
  };
  EXPECT_EQ(retry("7"), 7);
  EXPECT_EQ(retry("0"), 1);
  EXPECT_EQ(retry("soon"), 1);
}

TEST(OpenAiErrorTest, TooLongPromptsHaveOpenAisCode) {
  EXPECT_EQ(FromStatus(MakeError(StatusCode::kInvalidArgument,
                                 "CONTEXT_TOO_LONG", "9 of 8"))
                .code,
            "context_length_exceeded");
}

TEST(OpenAiErrorTest, TransportsOwnWordsStayHere) {
  const ApiError error =
      FromStatus(absl::UnavailableError("failed to connect to 10.0.0.1:7072"));
  EXPECT_EQ(error.message, "the inference server cannot be reached");
  EXPECT_EQ(error.code, "unavailable");
}

TEST(OpenAiErrorTest, JsonIsWholeWhateverTheMessage) {
  const auto json = nlohmann::json::parse(
      ErrorJson(InvalidField("", "a \"quote\" and a byte \xff")));
  EXPECT_TRUE(json["error"]["param"].is_null());
  EXPECT_TRUE(json["error"]["code"].is_null());
  EXPECT_EQ(json["error"]["type"], "invalid_request_error");
}

}  // namespace
}  // namespace onegrid::gateway
