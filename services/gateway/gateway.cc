#include "services/gateway/gateway.h"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "services/common/error_info.h"
#include "services/common/log.h"
#include "services/gateway/completion_run.h"
#include "services/gateway/error_response.h"

namespace onegrid::gateway {
namespace {

constexpr char kModels[] = "/v1/models";
constexpr char kCompletions[] = "/v1/completions";
constexpr char kChat[] = "/v1/chat/completions";
constexpr char kHealth[] = "/health";
constexpr char kMetrics[] = "/metrics";
constexpr int kClientGone = 499;
constexpr size_t kLoggedPathBytes = 128;

// One of few names, so that a path that nobody knows makes no new time series.
std::string Endpoint(absl::string_view path) {
  for (const char* known : {kModels, kCompletions, kChat, kHealth, kMetrics}) {
    if (path == known) return known;
  }
  if (absl::StartsWith(path, absl::StrCat(kModels, "/"))) return kModels;
  return "other";
}

HttpResponse Refused(int http_status, absl::string_view code,
                     absl::string_view message) {
  ApiError error = InvalidField("", message);
  error.http_status = http_status;
  error.code = std::string(code);
  return ErrorResponse(error);
}

ApiError NoSuchModel(absl::string_view model) {
  ApiError error = InvalidField(
      "model", absl::StrCat("the model ", model, " does not exist"));
  error.http_status = 404;
  error.code = "model_not_found";
  return error;
}

// What the client is not told. A message with a reason is the backend's and may
// quote the request; without one it is gRPC's.
void LogBackendFailure(const absl::Status& status) {
  if (FromStatus(status).http_status < 500) return;
  const std::string reason = common::ErrorReason(status);
  common::LogWarning(
      "backend_failed",
      {{"code", common::StatusCodeName(status.code())},
       {"reason", reason},
       {"message", reason.empty() ? status.message() : absl::string_view()}});
}

// All of a stream before any of it is sent.
absl::Status Collect(CompletionRun& run, HttpResponse* response) {
  auto parts = std::make_shared<std::deque<std::string>>();
  std::string part;
  while (run.NextPart(&part)) parts->push_back(part);
  response->next_part = [parts](std::string* next) {
    if (parts->empty()) return false;
    *next = std::move(parts->front());
    parts->pop_front();
    return true;
  };
  return run.status();
}

// Takes as long whatever the first difference is.
bool EqualInConstantTime(absl::string_view a, absl::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  }
  return difference == 0;
}

}  // namespace

// What is known of one request while it is answered.
struct Gateway::Exchange {
  std::string method, path, endpoint;
  absl::Time start;
  int http_status = 0;
  bool generates = false;
  std::unique_ptr<CompletionRun> run;
  RouteRecord route;
};

Gateway::Gateway(GatewayOptions options, Backend& backend)
    : options_(std::move(options)),
      created_seconds_(absl::ToUnixSeconds(absl::Now())),
      backend_(backend),
      metrics_(options_.model_name) {}

HttpResponse Gateway::Handle(const HttpRequest& request) {
  auto exchange = std::make_shared<Exchange>();
  exchange->method = request.method;
  exchange->path = request.path.substr(0, kLoggedPathBytes);
  exchange->endpoint = Endpoint(request.path);
  exchange->start = absl::Now();
  HttpResponse response = Route(request, exchange);
  exchange->http_status = response.status;
  response.on_done = [this, exchange](bool sent) { Done(*exchange, sent); };
  return response;
}

HttpResponse Gateway::Route(const HttpRequest& request,
                            const std::shared_ptr<Exchange>& exchange) {
  const std::string& endpoint = exchange->endpoint;
  if (absl::StartsWith(request.path, "/v1/") && !IsAuthorized(request)) {
    HttpResponse response =
        Refused(401, "invalid_api_key", "the API key is missing or wrong");
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return response;
  }
  if (endpoint == "other") {
    return Refused(404, "not_found",
                   absl::StrCat("there is nothing at ", exchange->path));
  }
  const bool posts = endpoint == kCompletions || endpoint == kChat;
  const bool allowed =
      posts ? request.method == "POST"
            : request.method == "GET" || request.method == "HEAD";
  if (!allowed) {
    HttpResponse response =
        Refused(405, "method_not_allowed",
                absl::StrCat(request.method, " is not for ", endpoint));
    response.headers.emplace_back("Allow", posts ? "POST" : "GET, HEAD");
    return response;
  }
  if (request.body_too_large) {
    return Refused(413, "body_too_large",
                   "the body is larger than this server takes");
  }
  if (posts) return Complete(request, endpoint == kChat, exchange);
  if (endpoint == kHealth) return Health();
  if (endpoint == kMetrics) return Metrics();
  absl::string_view id = request.path;
  absl::ConsumePrefix(&id, kModels);
  absl::ConsumePrefix(&id, "/");
  return Models(id);
}

HttpResponse Gateway::Models(absl::string_view id) {
  std::vector<nlohmann::json> models;
  const auto add = [&](const std::string& name) -> nlohmann::json& {
    return models.emplace_back(nlohmann::json{{"id", name},
                                              {"object", "model"},
                                              {"created", created_seconds_},
                                              {"owned_by", "onegrid"}});
  };
  std::vector<std::string> names = {options_.model_name};
  if (options_.router != nullptr) names = options_.router->Models();
  for (const std::string& name : names) add(name);
  // These have their names also while nobody answers.
  const auto adapters = backend_.Adapters(options_.health_timeout);
  if (adapters.ok()) {
    for (const std::string& name : *adapters) {
      // The names of rules come first.
      if (std::find(names.begin(), names.end(), name) != names.end()) continue;
      add(name)["parent"] = options_.model_name;
    }
  }
  HttpResponse response;
  if (id.empty()) {
    response.body = nlohmann::json{{"object", "list"}, {"data", models}}.dump();
    return response;
  }
  for (const nlohmann::json& model : models) {
    if (model["id"].get_ref<const std::string&>() != id) continue;
    response.body = model.dump();
    return response;
  }
  return ErrorResponse(NoSuchModel(id));
}

absl::StatusOr<std::string> Gateway::AdapterOf(const std::string& model) {
  if (model == options_.model_name) return std::string();
  ASSIGN_OR_RETURN(const std::vector<std::string> adapters,
                   backend_.Adapters(options_.health_timeout));
  if (std::find(adapters.begin(), adapters.end(), model) != adapters.end()) {
    return model;
  }
  return absl::NotFoundError("no such model");
}

HttpResponse Gateway::Health() {
  const auto info = backend_.Info(options_.health_timeout);
  if (!info.ok()) {
    LogBackendFailure(info.status());
    ApiError error = FromStatus(info.status());
    error.http_status = 503;
    return ErrorResponse(error);
  }
  HttpResponse response;
  response.body = R"({"status":"ok"})";
  return response;
}

HttpResponse Gateway::Metrics() {
  const auto load = backend_.Load(options_.load_timeout);
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = metrics_.Text(load.ok() ? &*load : nullptr);
  if (options_.router != nullptr)
    response.body += options_.router->MetricsText();
  return response;
}

HttpResponse Gateway::Complete(const HttpRequest& request, bool chat,
                               const std::shared_ptr<Exchange>& exchange) {
  if (!request.content_encoding.empty() &&
      request.content_encoding != "identity") {
    return Refused(415, "unsupported_encoding",
                   "compressed bodies are not supported");
  }
  const AskLocal ask_local = [&](bool measure) {
    return AnswerLocally(request, chat, measure, exchange);
  };
  std::optional<RouteFacts> facts;
  if (options_.router != nullptr) facts = options_.router->Read(request, chat);
  // What cannot be read, or names no model, is refused as ever; what only an
  // adapter is called is nowhere else.
  if (!facts.has_value() || !options_.router->Knows(facts->model)) {
    LocalAnswer answer = ask_local(/*measure=*/false);
    return answer.error.has_value() ? ErrorResponse(*answer.error)
                                    : std::move(answer.response);
  }
  RoutedRequest routed;
  routed.body = request.body;
  routed.chat = chat;
  routed.facts = *std::move(facts);
  routed.deadline = exchange->start + options_.timeout;
  routed.abandoned = [gone = request.client_gone, stopping = request.stopping] {
    return gone() || stopping();
  };
  return options_.router->Answer(routed, ask_local, &exchange->route);
}

LocalAnswer Gateway::AnswerLocally(const HttpRequest& request, bool chat,
                                   bool measure,
                                   const std::shared_ptr<Exchange>& exchange) {
  LocalAnswer refused;
  auto parsed = chat ? ParseChatRequest(request.body)
                     : ParseCompletionRequest(request.body);
  if (auto* error = std::get_if<ApiError>(&parsed)) {
    refused.error = std::move(*error);
    return refused;
  }
  auto& completion = std::get<CompletionRequest>(parsed);
  if (options_.router != nullptr && options_.router->Knows(completion.model)) {
    // A rule's name for a model.
    completion.model = options_.model_name;
  }
  auto adapter = AdapterOf(completion.model);
  if (absl::IsNotFound(adapter.status())) {
    refused.error = NoSuchModel(completion.model);
    return refused;
  }
  if (!adapter.ok()) {
    LogBackendFailure(adapter.status());
    refused.error = FromStatus(adapter.status());
    return refused;
  }
  completion.adapter = *std::move(adapter);
  exchange->generates = true;
  metrics_.GenerationBegan();
  return Generate(std::move(completion), measure, request, exchange);
}

LocalAnswer Gateway::Generate(CompletionRequest parsed, bool measure,
                              const HttpRequest& request,
                              const std::shared_ptr<Exchange>& exchange) {
  const bool stream = parsed.stream;
  CompletionRun::Options options;
  options.id =
      absl::StrFormat("%s-%016x%016x", parsed.chat ? "chatcmpl" : "cmpl",
                      options_.random(), options_.random());
  options.created_seconds = absl::ToUnixSeconds(exchange->start);
  options.seed = options_.random();
  options.deadline = exchange->start + options_.timeout;
  options.measure = measure;
  options.client_gone = request.client_gone;
  options.stopping = request.stopping;
  options.on_tokens = [this, start = exchange->start,
                       last = absl::Time()]() mutable {
    const absl::Time now = absl::Now();
    if (last == absl::Time()) {
      metrics_.FirstToken(now - start);
    } else {
      metrics_.NextTokens(now - last);
    }
    last = now;
  };
  options.on_finished = [this](const v1::Finished& finished) {
    metrics_.Finished(finished);
  };
  exchange->run = std::make_unique<CompletionRun>(std::move(parsed), backend_,
                                                  std::move(options));
  CompletionRun* run = exchange->run.get();
  LocalAnswer answer;
  HttpResponse& response = answer.response;
  absl::Status status = run->Start();
  if (status.ok() && stream) {
    response.content_type = "text/event-stream; charset=utf-8";
    response.headers.emplace_back("Cache-Control", "no-cache");
    // Proxies would collect the events otherwise.
    response.headers.emplace_back("X-Accel-Buffering", "no");
    response.next_part = [run, exchange](std::string* part) {
      return run->NextPart(part);
    };
    if (measure) status = Collect(*run, &response);
  } else if (status.ok()) {
    auto whole = run->Whole();
    if (whole.ok()) response.body = *std::move(whole);
    status = whole.status();
  }
  answer.confidence = run->confidence();
  if (status.ok()) return answer;
  LogBackendFailure(status);
  answer.error = FromStatus(status);
  return answer;
}

bool Gateway::IsAuthorized(const HttpRequest& request) const {
  if (options_.api_key.empty()) return true;
  absl::string_view header = request.authorization;
  return header.size() > 7 &&
         absl::EqualsIgnoreCase(header.substr(0, 7), "Bearer ") &&
         EqualInConstantTime(absl::StripAsciiWhitespace(header.substr(7)),
                             options_.api_key);
}

void Gateway::Done(const Exchange& exchange, bool sent) {
  int http_status = exchange.http_status;
  Usage usage;
  // Who answered; the local model may have tried before an upstream.
  const UpstreamCall* call = exchange.route.call.get();
  absl::Status status;
  if (call != nullptr) {
    usage.prompt_tokens = call->usage().prompt;
    usage.completion_tokens = call->usage().completion;
    status = call->status();
  } else if (exchange.run != nullptr) {
    usage = exchange.run->usage();
    status = exchange.run->status();
  }
  // Of a stream that broke off the status that went out says nothing.
  if (!status.ok() && http_status == 200) {
    if (call == nullptr) LogBackendFailure(status);
    http_status = FromStatus(status).http_status;
  }
  if (!sent && http_status == 200) http_status = kClientGone;
  const absl::Duration duration = absl::Now() - exchange.start;
  if (exchange.generates) {
    // These tell of the local model, also where an upstream answered at last.
    const bool succeeded = exchange.run != nullptr &&
                           exchange.run->status().ok() &&
                           (call != nullptr || http_status == 200);
    metrics_.GenerationEnded(
        succeeded, duration,
        exchange.run == nullptr ? Usage() : exchange.run->usage());
  }
  metrics_.Answered(exchange.endpoint, http_status);
  common::LogInfo(
      "request",
      {{"method", exchange.method},
       {"path", exchange.path},
       {"status", http_status},
       {"route", exchange.route.target.empty() ? "-" : exchange.route.Text()},
       {"duration_ms", absl::ToInt64Milliseconds(duration)},
       {"prompt_tokens", usage.prompt_tokens},
       {"cached_tokens", usage.cached_tokens},
       {"completion_tokens", usage.completion_tokens}});
}

}  // namespace onegrid::gateway
