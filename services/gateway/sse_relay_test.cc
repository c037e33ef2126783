#include "services/gateway/sse_relay.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace onegrid::gateway {
namespace {

constexpr char kStream[] =
    "data: {\"a\":1}\n\n: a comment\r\n\r\ndata: {\"b\":2}\r\ndata: x\r\n\r\n"
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,"
    "\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";

TEST(SseRelayTest, WholeEventsPassAsTheyCame) {
  SseRelay relay;
  EXPECT_EQ(relay.Append("data: 1\n"), "");
  EXPECT_EQ(relay.Append("\ndata: 2\n\ndata:"), "data: 1\n\ndata: 2\n\n");
  EXPECT_EQ(relay.Append(" 3"), "");
  EXPECT_FALSE(relay.done());
  EXPECT_EQ(relay.events(), 2);
}

TEST(SseRelayTest, AnyCutGivesTheSame) {
  const std::string stream = kStream;
  for (size_t step = 1; step <= stream.size(); ++step) {
    SseRelay relay;
    std::string passed;
    for (size_t i = 0; i < stream.size(); i += step) {
      passed += relay.Append(stream.substr(i, step));
    }
    ASSERT_EQ(passed, stream) << step;
    EXPECT_TRUE(relay.done());
    EXPECT_EQ(relay.events(), 4);
    ASSERT_TRUE(relay.usage().has_value());
    EXPECT_EQ(relay.usage()->prompt, 7);
    EXPECT_EQ(relay.usage()->completion, 3);
  }
}

TEST(SseRelayTest, AnEventWithoutAnEndIsTooLarge) {
  SseRelay relay;
  EXPECT_EQ(relay.Append("data: 1\n\n"), "data: 1\n\n");
  EXPECT_EQ(relay.Append(std::string(SseRelay::kEventBytesMax + 1, 'x')), "");
  EXPECT_TRUE(relay.too_large());
  EXPECT_EQ(relay.Append("\n\n"), "");
}

TEST(UsageOfTest, OnlySaneUsageCounts) {
  const auto usage = UsageOf(
      R"({"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}})");
  ASSERT_TRUE(usage.has_value());
  EXPECT_EQ(usage->prompt + usage->completion, 3);
  for (const char* json :
       {"", "[]", R"({"usage":null})", R"({"usage":{"prompt_tokens":1}})",
        R"({"usage":{"prompt_tokens":-1,"completion_tokens":2}})",
        R"({"usage":{"prompt_tokens":1.5,"completion_tokens":2}})",
        R"({"usage":{"prompt_tokens":9000000000000,"completion_tokens":2}})",
        R"({"usage":{"prompt_tokens":1,"completion_tokens":2})"}) {
    EXPECT_FALSE(UsageOf(json).has_value()) << json;
  }
  const std::string deep =
      absl::StrCat(R"({"usage":)", std::string(100000, '['));
  EXPECT_FALSE(UsageOf(deep).has_value());
}

}  // namespace
}  // namespace onegrid::gateway
