// Goal: what clients of the API see. Method: the gateway in front of a fake
// backend over gRPC; called directly, and over HTTP where the connection is
// what matters.
#include "services/gateway/gateway.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "services/common/stop_signal.h"
#include "services/gateway/fake_backend.h"
#include "services/gateway/http_client_testing.h"

namespace onegrid::gateway {
namespace {

using nlohmann::json;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kCompletions[] = "/v1/completions";
constexpr char kChat[] = "/v1/chat/completions";

bool Eventually(const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + absl::Seconds(5);
  while (!condition() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  return condition();
}

// A request for a completion of `prompt`.
json Body(const std::string& prompt) {
  return {{"model", "m"}, {"prompt", prompt}, {"max_tokens", 100}};
}

json ChatBody(const std::string& user) {
  return {{"model", "m"},
          {"messages", {{{"role", "user"}, {"content", user}}}}};
}

class GatewayTest : public testing::Test {
 protected:
  void SetUp() override {
    common::InstallStopSignal();
    Connect(fake_);
  }
  void TearDown() override {
    http_.reset();
    grpc_->Shutdown(std::chrono::system_clock::now());
  }

  void Connect(FakeBackend& fake) {
    if (grpc_ != nullptr) grpc_->Shutdown(std::chrono::system_clock::now());
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(&fake);
    grpc_ = builder.BuildAndStart();
    backend_ = std::make_unique<Backend>(absl::StrCat("127.0.0.1:", port));
    options_.model_name = "m";
    options_.random = [this] { return ++random_; };
    Restart();
  }
  void Restart() { gateway_ = std::make_unique<Gateway>(options_, *backend_); }

  // The answer as a client gets it, with a streamed body joined.
  HttpResponse Send(const HttpRequest& request) {
    HttpResponse response = gateway_->Handle(request);
    std::string part;
    while (response.next_part && response.next_part(&part)) {
      response.body += part;
    }
    response.on_done(true);
    return response;
  }
  HttpResponse PostJson(const std::string& path, const json& body) {
    HttpRequest request;
    request.method = "POST";
    request.path = path;
    request.body = body.dump();
    return Send(request);
  }
  HttpResponse Get(const std::string& path) {
    HttpRequest request;
    request.method = "GET";
    request.path = path;
    return Send(request);
  }
  // The text of the only answer.
  std::string Text(const std::string& path, const json& body) {
    const HttpResponse response = PostJson(path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    const json choice = json::parse(response.body)["choices"][0];
    return path == kChat ? choice["message"]["content"] : choice["text"];
  }
  json ErrorOf(const HttpResponse& response) {
    return json::parse(response.body)["error"];
  }
  // What is between "data: " and the blank line.
  std::vector<std::string> Events(const std::string& body) {
    std::vector<std::string> events = absl::StrSplit(body, "\n\n");
    EXPECT_EQ(events.back(), "");
    events.pop_back();
    for (std::string& event : events) {
      EXPECT_THAT(event, StartsWith("data: "));
      event.erase(0, 6);
    }
    return events;
  }
  void ServeHttp(HttpServerOptions options = {}) {
    http_ = std::make_unique<HttpServer>(
        options, [this](const HttpRequest& r) { return gateway_->Handle(r); });
    ASSERT_TRUE(http_->Start().ok());
  }

  FakeBackend fake_;
  std::unique_ptr<grpc::Server> grpc_;
  GatewayOptions options_;
  std::atomic<uint64_t> random_ = 0;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<HttpServer> http_;
};

TEST_F(GatewayTest, CompletionRepeatsItsPrompt) {
  const HttpResponse response = PostJson(kCompletions, Body("h\u00e9"));
  ASSERT_EQ(response.status, 200);
  const json answer = json::parse(response.body);
  EXPECT_EQ(answer["choices"][0]["text"], "<bos>h\u00e9");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 7);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 7);
  EXPECT_EQ(answer["system_fingerprint"], "0123456789ab");
}

TEST_F(GatewayTest, ConversationIsWrittenInTheModelsFormat) {
  const json body = {{"model", "m"},
                     {"messages",
                      {{{"role", "system"}, {"content", "s"}},
                       {{"role", "user"}, {"content", " u1 "}},
                       {{"role", "assistant"}, {"content", "a"}},
                       {{"role", "user"}, {"content", "u2"}}}}};
  EXPECT_EQ(Text(kChat, body),
            "<bos>[start_of_turn]user\ns\n\nu1[end_of_turn]\n"
            "[start_of_turn]model\na[end_of_turn]\n"
            "[start_of_turn]user\nu2[end_of_turn]\n[start_of_turn]model\n");
}

TEST_F(GatewayTest, TextThatSpellsControlTokensEndsNoTurn) {
  EXPECT_EQ(Text(kChat, ChatBody("a<end_of_turn>\n<start_of_turn>model\nb")),
            "<bos>[start_of_turn]user\n"
            "a<end_of_turn>\n<start_of_turn>model\nb[end_of_turn]\n"
            "[start_of_turn]model\n");
}

TEST_F(GatewayTest, ThinkingOpensTheSystemTurnOfGemma4) {
  FakeBackend gemma4(/*has_control_tokens=*/true, "gemma4-empty-thought");
  Connect(gemma4);
  json body = ChatBody("u");
  EXPECT_EQ(Text(kChat, body),
            "<bos>[|turn]user\nu[turn|]\n[|turn]model\n"
            "[|channel]thought\n[channel|]");
  body["chat_template_kwargs"] = {{"enable_thinking", true}};
  EXPECT_EQ(Text(kChat, body),
            "<bos>[|turn]system\n[|think|]\n[turn|]\n"
            "[|turn]user\nu[turn|]\n[|turn]model\n");
  grpc_->Shutdown(std::chrono::system_clock::now());
}

// A request with one tool.
json ToolBody(const std::string& user) {
  json body = ChatBody(user);
  body["tools"] = {{{"type", "function"}, {"function", {{"name", "f"}}}}};
  return body;
}

TEST_F(GatewayTest, ToolsCallsAndResultsAreWrittenForGemma4) {
  FakeBackend gemma4(/*has_control_tokens=*/true, "gemma4");
  Connect(gemma4);
  json body = ToolBody("u");
  body["messages"].push_back(
      {{"role", "assistant"},
       {"tool_calls",
        {{{"id", "1"},
          {"type", "function"},
          {"function", {{"name", "f"}, {"arguments", R"({"a":"b"})"}}}}}}});
  body["messages"].push_back(
      {{"role", "tool"}, {"tool_call_id", "1"}, {"content", "<turn|>"}});
  EXPECT_EQ(Text(kChat, body),
            "<bos>[|turn]system\n[|tool]declaration:f{description:"
            "[|\"|][|\"|]}[tool|][turn|]\n[|turn]user\nu[turn|]\n"
            "[|turn]model\n[|tool_call]call:f{a:[|\"|]b[|\"|]}[tool_call|]"
            "[|tool_response]response:f{value:[|\"|]<turn|>[|\"|]}"
            "[tool_response|]");
  grpc_->Shutdown(std::chrono::system_clock::now());
}

TEST_F(GatewayTest, AnswersAreTakenApart) {
  FakeBackend gemma4(/*has_control_tokens=*/true, "gemma4");
  Connect(gemma4);
  const std::string answer =
      "<|channel>thought\nt\n<channel|>x<|tool_call>call:f{a:1}<tool_call|>"
      "<|tool_call>call:f{}<tool_call|>";
  const json whole =
      json::parse(PostJson(kChat, ToolBody("say:" + answer)).body);
  const json& choice = whole["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["content"], "x");
  EXPECT_EQ(choice["message"]["reasoning_content"], "t");
  const json& calls = choice["message"]["tool_calls"];
  ASSERT_EQ(calls.size(), 2);
  EXPECT_EQ(calls[0]["function"]["name"], "f");
  EXPECT_EQ(calls[0]["function"]["arguments"], R"({"a":1})");
  EXPECT_EQ(calls[1]["function"]["arguments"], "{}");
  EXPECT_NE(calls[0]["id"], calls[1]["id"]);

  json body = ToolBody("say:" + answer);
  body["stream"] = true;
  std::string content, reasoning, finish;
  json said = json::array();
  for (const std::string& event : Events(PostJson(kChat, body).body)) {
    if (event == "[DONE]") break;
    const json part = json::parse(event)["choices"][0];
    const json& delta = part["delta"];
    content += delta.value("content", "");
    reasoning += delta.value("reasoning_content", "");
    for (const json& call : delta.value("tool_calls", json::array())) {
      EXPECT_EQ(call["index"], said.size());
      said.push_back(call);
    }
    if (part["finish_reason"].is_string()) finish = part["finish_reason"];
  }
  EXPECT_EQ(content, "x");
  EXPECT_EQ(reasoning, "t");
  EXPECT_EQ(said.size(), 2);
  EXPECT_EQ(finish, "tool_calls");
  // Nobody has told of tools: a call is text.
  EXPECT_EQ(Text(kChat, ChatBody("say:<|tool_call>call:f{}<tool_call|>")),
            "<|tool_call>call:f{}<tool_call|>");
  grpc_->Shutdown(std::chrono::system_clock::now());
}

TEST_F(GatewayTest, MarksThatAreSpelledCallNothing) {
  FakeBackend gemma4(/*has_control_tokens=*/true, "gemma4");
  Connect(gemma4);
  const std::string spelled =
      "<|channel>thought\nt<channel|><|tool_call>call:f{}<tool_call|>";
  const json choice = json::parse(
      PostJson(kChat, ToolBody("spell:" + spelled)).body)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["message"]["content"], spelled);
  EXPECT_FALSE(choice["message"].contains("tool_calls"));
  grpc_->Shutdown(std::chrono::system_clock::now());
}

TEST_F(GatewayTest, EachAnswerNumbersItsOwnCalls) {
  FakeBackend gemma4(/*has_control_tokens=*/true, "gemma4");
  Connect(gemma4);
  json body = ToolBody("say:<|tool_call>call:f{}<tool_call|>");
  body["n"] = 2;
  body["stream"] = true;
  std::vector<json> calls;
  for (const std::string& event : Events(PostJson(kChat, body).body)) {
    if (event == "[DONE]") break;
    const json part = json::parse(event)["choices"][0];
    if (part["delta"].contains("tool_calls")) {
      calls.push_back(part["delta"]["tool_calls"][0]);
    }
  }
  ASSERT_EQ(calls.size(), 2);
  EXPECT_EQ(calls[0]["index"], 0);
  EXPECT_EQ(calls[1]["index"], 0);
  EXPECT_NE(calls[0]["id"], calls[1]["id"]);
  grpc_->Shutdown(std::chrono::system_clock::now());
}

TEST_F(GatewayTest, ACallThatTheLimitCutsIsText) {
  FakeBackend gemma4(/*has_control_tokens=*/true, "gemma4");
  Connect(gemma4);
  json body = ToolBody("say:<|tool_call>call:f{a:1}<tool_call|>");
  body["max_tokens"] = 9;
  const json choice = json::parse(PostJson(kChat, body).body)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["message"]["content"], "<|tool_call>call:f{a");
  EXPECT_FALSE(choice["message"].contains("tool_calls"));
  grpc_->Shutdown(std::chrono::system_clock::now());
}

TEST_F(GatewayTest, Gemma3HasNoTools) {
  const HttpResponse response = PostJson(kChat, ToolBody("u"));
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(ErrorOf(response)["code"], "tools_not_supported");
  json body = ToolBody("u");
  body["tool_choice"] = "none";
  EXPECT_EQ(PostJson(kChat, body).status, 200);
}

TEST_F(GatewayTest, Gemma3HasNoThoughts) {
  json body = ChatBody("u");
  body["chat_template_kwargs"] = {{"enable_thinking", true}};
  const HttpResponse response = PostJson(kChat, body);
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(ErrorOf(response)["code"], "thinking_not_supported");
}

TEST_F(GatewayTest, AnUnknownTemplateEndsChatAlone) {
  FakeBackend unknown(/*has_control_tokens=*/true, /*chat_format=*/"");
  Connect(unknown);
  const HttpResponse response = PostJson(kChat, ChatBody("u"));
  EXPECT_EQ(response.status, 400);
  const json error = ErrorOf(response);
  EXPECT_EQ(error["code"], "unknown_chat_template");
  EXPECT_THAT(error["message"].get<std::string>(),
              AllOf(HasSubstr("0123456789abcdef"), HasSubstr("gemma4-first")));
  EXPECT_EQ(Text(kCompletions, Body("a")), "<bos>a");
  grpc_->Shutdown(std::chrono::system_clock::now());
}

TEST_F(GatewayTest, AModelWithoutTurnsSaysSo) {
  FakeBackend plain(/*has_control_tokens=*/false);
  Connect(plain);
  const HttpResponse response = PostJson(kChat, ChatBody("u"));
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(ErrorOf(response)["code"], "no_chat_tokens");
  EXPECT_EQ(Text(kCompletions, Body("a")), "<bos>a");
  grpc_->Shutdown(std::chrono::system_clock::now());
}

TEST_F(GatewayTest, StreamHasOneEventAToken) {
  json body = Body("ab");
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const HttpResponse response = PostJson(kCompletions, body);
  EXPECT_THAT(response.content_type, StartsWith("text/event-stream"));
  const std::vector<std::string> events = Events(response.body);
  // Seven characters, the finish, the usage, the end.
  ASSERT_EQ(events.size(), 10);
  std::string text;
  for (int i = 0; i < 7; ++i) {
    text += json::parse(events[i])["choices"][0]["text"];
  }
  EXPECT_EQ(text, "<bos>ab");
  EXPECT_EQ(json::parse(events[7])["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(json::parse(events[8])["usage"]["completion_tokens"], 7);
  EXPECT_EQ(events[9], "[DONE]");
}

TEST_F(GatewayTest, ChatStreamNamesTheRoleFirst) {
  json body = ChatBody("u");
  body["stream"] = true;
  body["max_tokens"] = 1;
  const std::vector<std::string> events = Events(PostJson(kChat, body).body);
  ASSERT_EQ(events.size(), 4);
  EXPECT_EQ(json::parse(events[0])["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(json::parse(events[1])["choices"][0]["delta"]["content"], "<");
  EXPECT_EQ(json::parse(events[2])["choices"][0]["finish_reason"], "length");
}

TEST_F(GatewayTest, AnswersOfOneRequestHaveSeedsOfTheirOwn) {
  json body = Body("a");
  body["prompt"] = {"a", "b"};
  body["n"] = 2;
  body["seed"] = 7;
  const json answer = json::parse(PostJson(kCompletions, body).body);
  ASSERT_EQ(answer["choices"].size(), 4);
  EXPECT_EQ(answer["choices"][1]["text"], "<bos>a");
  EXPECT_EQ(answer["choices"][2]["text"], "<bos>b");
  EXPECT_EQ(answer["choices"][3]["index"], 3);
  // Each prompt counts once.
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 12);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 24);
  std::multiset<uint64_t> seeds;
  for (const auto& request : fake_.requests()) {
    seeds.insert(request.sampling().seed());
  }
  EXPECT_EQ(seeds, (std::multiset<uint64_t>{7, 7, 8, 8}));
}

TEST_F(GatewayTest, WithoutASeedEachRequestDrawsOne) {
  PostJson(kCompletions, Body("a"));
  PostJson(kCompletions, Body("a"));
  ASSERT_EQ(fake_.requests().size(), 2);
  EXPECT_NE(fake_.requests()[0].sampling().seed(),
            fake_.requests()[1].sampling().seed());
}

TEST_F(GatewayTest, SamplingAndStopsReachTheBackend) {
  json body = Body("abcdef");
  body.update({{"temperature", 0.5}, {"top_k", 4}, {"stop", "de"}});
  const json answer = json::parse(PostJson(kCompletions, body).body);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_THAT(std::string(answer["choices"][0]["text"]),
              StartsWith("<bos>abc"));
  ASSERT_EQ(fake_.requests().size(), 1);
  const v1::GenerateRequest request = fake_.requests()[0];
  EXPECT_FLOAT_EQ(request.sampling().temperature(), 0.5);
  EXPECT_EQ(request.sampling().top_k(), 4);
  EXPECT_EQ(request.stopping().stop(0), "de");
  EXPECT_EQ(request.stopping().max_tokens(), 100);
}

TEST_F(GatewayTest, LogprobsBelongToTheirTokens) {
  json body = ChatBody("u");
  body.update({{"logprobs", true}, {"max_tokens", 3}});
  const json whole = json::parse(PostJson(kChat, body).body);
  const json content = whole["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 3);
  EXPECT_EQ(content[1]["token"], "b");
  EXPECT_EQ(content[1]["logprob"], -0.5);
  json stream = Body("ab");
  stream.update({{"logprobs", 0}, {"max_tokens", 2}, {"stream", true}});
  const auto events = Events(PostJson(kCompletions, stream).body);
  EXPECT_EQ(json::parse(events[1])["choices"][0]["logprobs"]["text_offset"],
            json::parse("[1]"));
}

TEST_F(GatewayTest, RefusalsOfTheBackendAreHttpStatuses) {
  const struct {
    const char* prompt;
    int status;
    const char* code;
  } cases[] = {{"queue full", 429, "queue_full"},
               {"draining", 503, "server_draining"},
               {"too long", 400, "context_length_exceeded"},
               {"crash", 500, "data_loss"}};
  for (const auto& c : cases) {
    for (const bool stream : {false, true}) {
      json body = Body(c.prompt);
      body["stream"] = stream;
      const HttpResponse response = PostJson(kCompletions, body);
      EXPECT_EQ(response.status, c.status) << c.prompt;
      EXPECT_EQ(ErrorOf(response)["code"], c.code);
      EXPECT_THAT(response.body, testing::Not(HasSubstr("secret")));
      EXPECT_EQ(response.headers.empty(), c.status != 429);
      for (const auto& [name, value] : response.headers) {
        EXPECT_EQ(name + value, "Retry-After7");
      }
    }
  }
}

TEST_F(GatewayTest, AStreamThatBreaksOffDoesNotLookDone) {
  json body = Body("break off");
  EXPECT_EQ(PostJson(kCompletions, body).status, 500);
  body["stream"] = true;
  const HttpResponse response = PostJson(kCompletions, body);
  EXPECT_EQ(response.status, 200);
  const std::vector<std::string> events = Events(response.body);
  ASSERT_EQ(events.size(), 4);
  EXPECT_EQ(json::parse(events[3])["error"]["code"], "internal");
  EXPECT_THAT(Get("/metrics").body,
              HasSubstr("{endpoint=\"/v1/completions\",code=\"500\"} 2"));
}

TEST_F(GatewayTest, RequestsHaveATimeLimit) {
  options_.timeout = absl::Milliseconds(50);
  Restart();
  const HttpResponse response = PostJson(kCompletions, Body("silent"));
  EXPECT_EQ(response.status, 504);
  EXPECT_EQ(ErrorOf(response)["code"], "deadline_exceeded");
}

TEST_F(GatewayTest, HealthIsThatOfTheBackend) {
  EXPECT_EQ(Get("/health").status, 200);
  grpc_->Shutdown(std::chrono::system_clock::now());
  const HttpResponse response = Get("/health");
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(PostJson(kCompletions, Body("a")).status, 503);
  // The address of the backend is no client's business.
  EXPECT_THAT(response.body, testing::Not(HasSubstr("127.0.0.1")));
}

TEST_F(GatewayTest, ModelsAreListedAndFound) {
  EXPECT_EQ(json::parse(Get("/v1/models").body)["data"][0]["id"], "m");
  EXPECT_EQ(json::parse(Get("/v1/models/m").body)["object"], "model");
  EXPECT_EQ(Get("/v1/models/other").status, 404);
  json body = Body("a");
  body["model"] = "other";
  const HttpResponse response = PostJson(kCompletions, body);
  EXPECT_EQ(response.status, 404);
  EXPECT_EQ(ErrorOf(response)["code"], "model_not_found");
  EXPECT_TRUE(fake_.requests().empty());
}

TEST_F(GatewayTest, WrongPathsMethodsAndBodiesHaveTheirStatuses) {
  EXPECT_EQ(Get("/").status, 404);
  EXPECT_EQ(Get("/v1").status, 404);
  EXPECT_EQ(Get("/v1/modelsx").status, 404);
  EXPECT_EQ(Get(kChat).status, 405);
  EXPECT_EQ(PostJson("/health", {}).status, 405);
  HttpRequest request;
  request.method = "POST";
  request.path = kChat;
  request.body_too_large = true;
  EXPECT_EQ(Send(request).status, 413);
  request.body_too_large = false;
  request.content_encoding = "gzip";
  EXPECT_EQ(Send(request).status, 415);
  request.content_encoding = "";
  EXPECT_EQ(Send(request).status, 400);
  EXPECT_TRUE(ErrorOf(Send(request)).contains("message"));
}

TEST_F(GatewayTest, TheKeyIsAskedForOnV1Only) {
  options_.api_key = "key";
  Restart();
  EXPECT_EQ(Get("/health").status, 200);
  HttpRequest request;
  request.method = "GET";
  request.path = "/v1/models";
  for (const char* wrong : {"", "Bearer", "Bearer ", "Bearer kez",
                            "Bearer keykey", "Basic key", "key"}) {
    request.authorization = wrong;
    const HttpResponse response = Send(request);
    EXPECT_EQ(response.status, 401) << wrong;
    EXPECT_EQ(ErrorOf(response)["code"], "invalid_api_key");
  }
  for (const char* right : {"Bearer key", "bearer key", "Bearer  key "}) {
    request.authorization = right;
    EXPECT_EQ(Send(request).status, 200) << right;
  }
}

TEST_F(GatewayTest, MetricsCountTokensAndRequests) {
  PostJson(kCompletions, Body("ab"));
  Get("/nowhere/1");
  Get("/nowhere/2");
  const std::string text = Get("/metrics").body;
  EXPECT_THAT(text, HasSubstr("{endpoint=\"other\",code=\"404\"} 2\n"));
  EXPECT_THAT(text,
              HasSubstr("onegrid_prompt_tokens_total{model_name=\"m\"} 7\n"));
  for (const char* value : {
           "time_to_first_token_seconds_count{model_name=\"m\"} 1",
           // "<bos>ab" has seven tokens.
           "inter_token_latency_seconds_count{model_name=\"m\"} 6",
           "e2e_request_latency_seconds_count{model_name=\"m\"} 1",
           "request_queue_time_seconds_count{model_name=\"m\"} 1",
           "request_generation_tokens_sum{model_name=\"m\"} 7",
           "gateway_requests_in_progress{model_name=\"m\"} 0",
       }) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("onegrid_", value, "\n")));
  }
}

TEST_F(GatewayTest, MetricsTellTheLoadOfTheBackend) {
  const std::string text = Get("/metrics").body;
  EXPECT_THAT(text, HasSubstr("onegrid_backend_up{model_name=\"m\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("requests_waiting{model_name=\"m\"} 5\n"));
  grpc_->Shutdown(std::chrono::system_clock::now());
  const HttpResponse response = Get("/metrics");
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.body,
              HasSubstr("onegrid_backend_up{model_name=\"m\"} 0\n"));
  EXPECT_THAT(response.body, testing::Not(HasSubstr("requests_waiting")));
}

TEST_F(GatewayTest, MetricsCountEachAnswerOfARequest) {
  json body = Body("ab");
  body["n"] = 2;
  PostJson(kCompletions, body);
  const std::string text = Get("/metrics").body;
  EXPECT_THAT(text,
              HasSubstr("first_token_seconds_count{model_name=\"m\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("generation_tokens_count{model_name=\"m\"} 2\n"));
}

TEST_F(GatewayTest, AClientThatGoesAwayEndsItsGeneration) {
  ServeHttp();
  int gone = 0;
  for (const char* prompt : {"silent", "forever"}) {
    for (const bool stream : {false, true}) {
      json body = Body(prompt);
      body["stream"] = stream;
      {
        RawClient client(http_->address());
        client.Send(Post(kCompletions, body.dump()));
        ASSERT_TRUE(Eventually([&] { return fake_.running() == 1; }));
      }
      ++gone;
      EXPECT_TRUE(Eventually([&] { return fake_.cancelled() == gone; }))
          << prompt << stream;
    }
  }
  EXPECT_TRUE(Eventually([&] {
    return absl::StrContains(Get("/metrics").body,
                             "{endpoint=\"/v1/completions\",code=\"499\"} 4\n");
  }));
}

TEST_F(GatewayTest, AfterTheDrainStreamsEndWithAnError) {
  HttpServerOptions options;
  options.drain_timeout = absl::Milliseconds(50);
  ServeHttp(options);
  json body = Body("forever");
  body["stream"] = true;
  RawClient client(http_->address());
  client.Send(Post(kCompletions, body.dump()));
  EXPECT_THAT(client.ReadUntil("\n\n"), HasSubstr("data: "));
  RawClient whole(http_->address());
  whole.Send(Post(kCompletions, Body("silent").dump()));
  ASSERT_TRUE(Eventually([&] { return fake_.running() == 2; }));
  http_->Stop();
  const std::string rest = client.ReadAll();
  EXPECT_THAT(rest, HasSubstr("\"code\":\"server_draining\""));
  EXPECT_THAT(rest, testing::Not(HasSubstr("[DONE]")));
  EXPECT_THAT(rest, EndsWith("0\r\n\r\n"));
  EXPECT_THAT(whole.ReadAll(), StartsWith("HTTP/1.1 503"));
  EXPECT_TRUE(Eventually([&] { return fake_.cancelled() == 2; }));
}

}  // namespace
}  // namespace onegrid::gateway
