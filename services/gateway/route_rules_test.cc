// Goal: which rule holds. Method: a request's facts against one rule or a few.
#include "services/gateway/route_rules.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace onegrid::gateway {
namespace {

using Action = RouteRule::Action;

RouteRule Rule(const std::string& name, Action action) {
  RouteRule rule;
  rule.name = name;
  rule.action = action;
  rule.upstream = action == Action::kLocal ? "" : "big";
  return rule;
}

class RouteRulesTest : public testing::Test {
 protected:
  RouteRulesTest() {
    facts_.is_private = false;
    facts_.model = "m";
    measures_.count_tokens = [this](const std::string&) {
      ++token_counts_;
      return tokens_;
    };
    measures_.queued = [this] {
      ++queue_asks_;
      return queued_;
    };
  }

  // Whether a rule with these conditions holds.
  bool Holds(RouteConditions when) {
    config_.rules = {Rule("r", Action::kUpstream)};
    config_.rules[0].when = std::move(when);
    return Decide().rule != nullptr;
  }
  RouteDecision Decide() { return DecideRoute(config_, facts_, measures_); }

  RouteConfig config_;
  RouteFacts facts_;
  RouteMeasures measures_;
  std::optional<int64_t> tokens_ = 100;
  std::optional<int64_t> queued_ = 3;
  int token_counts_ = 0;
  int queue_asks_ = 0;
};

TEST_F(RouteRulesTest, TheFirstRuleThatHoldsCounts) {
  config_.rules = {Rule("a", Action::kEscalate), Rule("b", Action::kUpstream)};
  EXPECT_EQ(Decide().name, "a");
  EXPECT_EQ(Decide().action, Action::kEscalate);
  config_.rules[0].when.tasks = {"other"};
  EXPECT_EQ(Decide().name, "b");
  EXPECT_EQ(Decide().reason, "rule");
}

TEST_F(RouteRulesTest, WithoutARuleItIsLocal) {
  EXPECT_EQ(Decide().action, Action::kLocal);
  EXPECT_EQ(Decide().name, "default");
  EXPECT_EQ(Decide().reason, "default");
}

TEST_F(RouteRulesTest, PrivateBeatsEveryRule) {
  facts_.is_private = true;
  for (const Action action : {Action::kUpstream, Action::kEscalate}) {
    config_.rules = {Rule("a", action)};
    EXPECT_EQ(Decide().action, Action::kLocal);
    EXPECT_EQ(Decide().name, "private");
    EXPECT_EQ(Decide().reason, "private");
  }
}

TEST_F(RouteRulesTest, TokenIdsMeanNothingElsewhere) {
  facts_.has_token_ids = true;
  config_.rules = {Rule("a", Action::kUpstream)};
  EXPECT_EQ(Decide().action, Action::kLocal);
  EXPECT_EQ(Decide().reason, "token_ids");
}

TEST_F(RouteRulesTest, ModelsAndTasksAreOneOfAList) {
  RouteConditions when;
  when.models = {"x", "m"};
  when.tasks = {"code", "sum"};
  EXPECT_FALSE(Holds(when));
  facts_.task = "sum";
  EXPECT_TRUE(Holds(when));
  facts_.model = "M";
  EXPECT_FALSE(Holds(when));
}

TEST_F(RouteRulesTest, RangesHaveTheirEnds) {
  RouteConditions when;
  when.prompt_characters = {10, 20};
  for (const auto& [characters, holds] :
       {std::pair(9, false), {10, true}, {20, true}, {21, false}}) {
    facts_.characters = characters;
    EXPECT_EQ(Holds(when), holds) << characters;
  }
}

TEST_F(RouteRulesTest, NoMaxTokensIsMoreThanAny) {
  RouteConditions at_least, at_most;
  at_least.max_tokens.min = 1'000'000;
  at_most.max_tokens.max = 1'000'000;
  EXPECT_TRUE(Holds(at_least));
  EXPECT_FALSE(Holds(at_most));
  facts_.max_tokens = 5;
  EXPECT_FALSE(Holds(at_least));
  EXPECT_TRUE(Holds(at_most));
}

TEST_F(RouteRulesTest, ToolsAndFormatsAreThereOrNot) {
  RouteConditions with_tools, without_format;
  with_tools.has_tools = true;
  without_format.has_response_format = false;
  EXPECT_FALSE(Holds(with_tools));
  EXPECT_TRUE(Holds(without_format));
  facts_.has_tools = facts_.has_response_format = true;
  EXPECT_TRUE(Holds(with_tools));
  EXPECT_FALSE(Holds(without_format));
}

TEST_F(RouteRulesTest, TokensAreCountedOnceAndOnlyIfARuleAsks) {
  RouteRule far = Rule("far", Action::kUpstream);
  far.when.prompt_tokens.min = 101;
  RouteRule near = Rule("near", Action::kUpstream);
  near.when.prompt_tokens.max = 100;
  config_.rules = {far, near};
  EXPECT_EQ(Decide().name, "near");
  EXPECT_EQ(token_counts_, 1);
  EXPECT_EQ(queue_asks_, 0);
  facts_.is_private = true;
  Decide();
  EXPECT_EQ(token_counts_, 1);
}

TEST_F(RouteRulesTest, WithoutATokenizerFourCharactersAreAToken) {
  tokens_ = std::nullopt;
  facts_.characters = 41;
  RouteConditions when;
  when.prompt_tokens = {11, 11};
  EXPECT_TRUE(Holds(when));
}

TEST_F(RouteRulesTest, AServerThatDoesNotAnswerHasAnEndlessQueue) {
  RouteConditions when;
  when.local_queued_min = 4;
  EXPECT_FALSE(Holds(when));
  queued_ = 4;
  EXPECT_TRUE(Holds(when));
  queued_ = std::nullopt;
  EXPECT_TRUE(Holds(when));
}

TEST_F(RouteRulesTest, ModelsThatRulesNameAreKnown) {
  config_.rules = {Rule("a", Action::kUpstream), Rule("b", Action::kLocal)};
  config_.rules[0].when.models = {"big-one", "m"};
  config_.rules[1].when.models = {"big-one", "other"};
  EXPECT_EQ(KnownModels(config_, "m"),
            (std::vector<std::string>{"m", "big-one", "other"}));
}

}  // namespace
}  // namespace onegrid::gateway
