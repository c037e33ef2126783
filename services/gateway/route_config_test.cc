// Goal: what is in the file is what is meant, and what is wrong is named with
// its line. Method: one good file, and files that differ from it in one place.
#include "services/gateway/route_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kGood[] = R"(default_privacy: public
upstreams:
  - name: big
    base_url: https://api.example.com/v1/
    model: big-model
    api_key_file: key
    connect_timeout_ms: 500
    request_timeout_ms: 9000
    response_bytes_max: 1000000
    budget:
      requests_per_minute: 60
      tokens_per_day: 1000000
      cost_per_day: 2.5
      prompt_cost_per_million: 1
      completion_cost_per_million: 4
    breaker:
      failures: 3
      open_ms: 20000
rules:
  - name: code
    when:
      task: [code, review]
      prompt_characters_min: 100
      prompt_tokens_max: 4000
      has_tools: false
    send: big
  - name: alias
    when: {model: small}
    send: local
  - name: unsure
    escalate: {to: big, mean_logprob_below: -1.5}
on_local_failure: big
)";

class RouteConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(
        common::WriteFileAtomic(folder_ + "/key", " sk-secret \n").ok());
  }
  absl::StatusOr<RouteConfig> Parse(const std::string& text) {
    return ParseRouteConfig(text, folder_);
  }
  // The message for the good file with one change.
  std::string ErrorWith(const std::string& from, const std::string& to) {
    const std::string text = absl::StrReplaceAll(kGood, {{from, to}});
    EXPECT_NE(text, kGood) << from;
    const auto config = Parse(text);
    EXPECT_FALSE(config.ok()) << to;
    if (config.ok()) return "";
    EXPECT_EQ(common::ErrorReason(config.status()), "INVALID_ROUTES");
    EXPECT_THAT(config.status().message(), Not(HasSubstr("secret")));
    return std::string(config.status().message());
  }

  const std::string folder_ = testing::TempDir();
};

TEST_F(RouteConfigTest, AGoodFileIsReadWhole) {
  const auto config = Parse(kGood);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->private_by_default);
  EXPECT_EQ(config->on_local_failure, "big");
  ASSERT_EQ(config->upstreams.size(), 1);
  const UpstreamConfig& big = config->upstreams[0];
  EXPECT_EQ(big.base_url, "https://api.example.com/v1");
  EXPECT_EQ(big.model, "big-model");
  EXPECT_EQ(big.api_key.Reveal(), "sk-secret");
  EXPECT_EQ(big.connect_timeout, absl::Milliseconds(500));
  EXPECT_EQ(big.request_timeout, absl::Seconds(9));
  EXPECT_EQ(big.response_bytes_max, 1'000'000);
  EXPECT_EQ(big.budget.requests_per_minute, 60);
  EXPECT_EQ(big.budget.cost_per_day, 2.5);
  EXPECT_EQ(big.budget.completion_cost_per_million, 4);
  EXPECT_EQ(big.breaker.failures, 3);
  EXPECT_EQ(big.breaker.open, absl::Seconds(20));
  ASSERT_EQ(config->rules.size(), 3);
  const RouteConditions& when = config->rules[0].when;
  EXPECT_THAT(when.tasks, testing::ElementsAre("code", "review"));
  EXPECT_EQ(when.prompt_characters.min, 100);
  EXPECT_EQ(when.prompt_tokens.max, 4000);
  EXPECT_EQ(when.has_tools, false);
  EXPECT_FALSE(when.has_response_format.has_value());
  EXPECT_EQ(config->rules[1].action, RouteRule::Action::kLocal);
  EXPECT_THAT(config->rules[1].when.models, testing::ElementsAre("small"));
  EXPECT_EQ(config->rules[2].action, RouteRule::Action::kEscalate);
  EXPECT_EQ(config->rules[2].below, -1.5);
}

TEST_F(RouteConfigTest, JsonIsYaml) {
  const auto config = Parse(
      R"({"default_privacy": "private", "rules": [], "upstreams":
          [{"name": "a", "base_url": "http://127.0.0.1:1", "model": "m"}]})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->private_by_default);
  EXPECT_TRUE(config->upstreams[0].api_key.empty());
}

TEST_F(RouteConfigTest, UnknownKeysAreNamedWithTheirLine) {
  EXPECT_THAT(ErrorWith("    model: big-model", "    modle: big-model"),
              HasSubstr("line 5, upstream 1: unknown key modle; there are"));
  EXPECT_THAT(ErrorWith("has_tools", "has_tool"),
              HasSubstr("line 25, rule 1, when: unknown key has_tool;"));
  EXPECT_THAT(ErrorWith("on_local_failure", "fallback"),
              HasSubstr("line 32, file: unknown key fallback"));
}

TEST_F(RouteConfigTest, AKeyInThePlaceOfItsFileIsNotRepeated) {
  EXPECT_THAT(ErrorWith("api_key_file: key", "api_key: sk-secret"),
              HasSubstr("line 6, upstream 1: unknown key api_key"));
  EXPECT_THAT(ErrorWith("api_key_file: key", "\"sk secret\": x"),
              HasSubstr("unknown key (unprintable)"));
  EXPECT_THAT(ErrorWith("https://api", "https://user:secret@api"),
              HasSubstr("line 4, upstream 1: base_url"));
}

TEST_F(RouteConfigTest, MissingValuesAreNamed) {
  EXPECT_THAT(ErrorWith("    model: big-model\n", ""),
              HasSubstr("line 3, upstream 1: model is missing"));
  EXPECT_THAT(ErrorWith("default_privacy: public\n", ""),
              HasSubstr("default_privacy is missing"));
  EXPECT_THAT(ErrorWith("      prompt_cost_per_million: 1\n", ""),
              HasSubstr("budget: prompt_cost_per_million is missing"));
  EXPECT_THAT(ErrorWith("    send: big\n", ""),
              HasSubstr("rule 1: name: expected either send or escalate"));
  EXPECT_THAT(ErrorWith(", mean_logprob_below: -1.5", ""),
              HasSubstr("line 31, rule 3, escalate: to"));
}

TEST_F(RouteConfigTest, WrongValuesAreNamed) {
  const struct {
    const char* from;
    const char* to;
    const char* message;
  } cases[] = {
      {"failures: 3", "failures: three", "line 17, upstream 1, breaker"},
      {"failures: 3", "failures: \"3\"", "failures: expected an integer"},
      {"failures: 3", "failures: 0", "from 1 to 1000000"},
      {"failures: 3", "failures: 3.5", "failures: expected an integer"},
      {"failures: 3", "failures:", "failures: expected an integer"},
      {"cost_per_day: 2.5", "cost_per_day: .inf", "cost_per_day: expected"},
      {"cost_per_day: 2.5", "cost_per_day: 0", "expected more than 0"},
      {"has_tools: false", "has_tools: no", "has_tools: expected true"},
      {"task: [code, review]", "task: []", "task: the list is empty"},
      {"task: [code, review]", "task: {a: b}", "task: expected a text"},
      {"default_privacy: public", "default_privacy: open", "line 1, file"},
      {"https://api", "ftp://api", "base_url: expected"},
      {"https://api.example.com/v1/", "https://a/?key=1", "base_url: expected"},
      {"https://api.example.com/v1/", "api.example.com", "base_url: expected"},
      {"name: big", "name: local", "local is the inference server"},
      {"name: big", "name: \"big; x\"", "name: expected a lower-case letter"},
      {"name: code", "name: private", "names of the gateway's own"},
      {"name: alias", "name: code", "rule 2 has the name of another"},
      {"send: big", "send: huge", "send: no upstream has this name"},
      {"to: big", "to: huge", "to: no upstream has this name"},
      {"failure: big", "failure: local", "no upstream has this name"},
      {"below: -1.5", "below: 1", "mean_logprob_below: expected a number"},
      {"api_key_file: key", "api_key_file: none", "api_key_file"},
      {"when: {model: small}", "when: {}", "rule 3 is never reached"},
      {"prompt_tokens_max: 4000", "prompt_characters_max: 99",
       "prompt_characters_min: is above"},
      {"    model: big-model", "    name: other",
       "line 5, upstream 1: a second"},
      {"upstreams:\n", "upstreams: {}\nx:\n", "unknown key x"},
  };
  for (const auto& wrong : cases) {
    EXPECT_THAT(ErrorWith(wrong.from, wrong.to), HasSubstr(wrong.message))
        << wrong.to;
  }
}

TEST_F(RouteConfigTest, HostileFilesAreRefused) {
  for (const std::string& text :
       {std::string(), std::string("a"), std::string("[]"), std::string("{"),
        std::string("\xff\xfe"), std::string("a: b\n---\na: b\n"),
        std::string(100000, '['), std::string(100000, '{'),
        std::string(2 << 20, ' '), std::string("a: &a [*a]"),
        std::string("default_privacy: &x [*x]\nupstreams: *x\nrules: *x"),
        std::string(","), std::string(",{\"a"), absl::StrCat(kGood, "}"),
        absl::StrCat(kGood, "---\n"), std::string("? {a: b}\n: c"),
        std::string("a: !!binary x"), absl::StrCat(kGood, "\t")}) {
    EXPECT_FALSE(Parse(text).ok()) << text.substr(0, 40);
  }
}

TEST_F(RouteConfigTest, KeysThatCannotBeHeadersAreRefused) {
  for (const std::string key : {"", " \n", "a b", "a\nX-Other: b", "a\x01"}) {
    ASSERT_TRUE(common::WriteFileAtomic(folder_ + "/bad", key).ok());
    EXPECT_THAT(ErrorWith("api_key_file: key", "api_key_file: bad"),
                HasSubstr("line 6, upstream 1: api_key_file: expected a file"));
  }
}

}  // namespace
}  // namespace onegrid::gateway
