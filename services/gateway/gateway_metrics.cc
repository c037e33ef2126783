#include "services/gateway/gateway_metrics.h"

#include <algorithm>
#include <cstddef>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"

namespace onegrid::gateway {
namespace {

std::string Quoted(absl::string_view value) {
  return absl::StrCat(
      "\"",
      absl::StrReplaceAll(value,
                          {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}}),
      "\"");
}

void AppendHead(absl::string_view name, absl::string_view type,
                absl::string_view help, std::string* out) {
  absl::StrAppend(out, "# HELP ", name, " ", help, "\n# TYPE ", name, " ", type,
                  "\n");
}

template <typename T>
void AppendValue(absl::string_view name, absl::string_view type,
                 absl::string_view help, absl::string_view label, T value,
                 std::string* out) {
  AppendHead(name, type, help, out);
  absl::StrAppend(out, name, "{", label, "} ", value, "\n");
}

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

std::vector<double> LatencyBounds() {
  return {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
          30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
}

// 1, 2, 5, 10 .. 100,000.
std::vector<double> TokenBounds() {
  std::vector<double> bounds;
  for (double power = 1; power < 100'000; power *= 10) {
    for (const double digit : {1, 2, 5}) bounds.push_back(digit * power);
  }
  bounds.push_back(100'000);
  return bounds;
}

}  // namespace

GatewayMetrics::GatewayMetrics(std::string model_name)
    : label_(absl::StrCat("model_name=", Quoted(model_name))),
      first_token_({0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                    0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                    20,    40,    80,   160,  640,  2560}),
      next_tokens_({0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                    0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}),
      latency_(LatencyBounds()),
      queue_(LatencyBounds()),
      inference_(LatencyBounds()),
      prefill_(LatencyBounds()),
      decode_(LatencyBounds()),
      prompt_tokens_(TokenBounds()),
      completion_tokens_(TokenBounds()) {}

void GatewayMetrics::Histogram::Observe(double value) {
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), value);
  ++counts[static_cast<size_t>(bucket - bounds.begin())];
  sum += value;
}

void GatewayMetrics::GenerationBegan() {
  absl::MutexLock lock(&mu_);
  ++in_progress_;
}

void GatewayMetrics::FirstToken(absl::Duration after) {
  absl::MutexLock lock(&mu_);
  first_token_.Observe(absl::ToDoubleSeconds(after));
}

void GatewayMetrics::NextTokens(absl::Duration after) {
  absl::MutexLock lock(&mu_);
  next_tokens_.Observe(absl::ToDoubleSeconds(after));
}

void GatewayMetrics::Finished(const v1::Finished& finished) {
  const double prefill = Seconds(finished.prefill_time());
  const double decode = Seconds(finished.decode_time());
  absl::MutexLock lock(&mu_);
  queue_.Observe(Seconds(finished.queue_time()));
  prefill_.Observe(prefill);
  decode_.Observe(decode);
  inference_.Observe(prefill + decode);
  prompt_tokens_.Observe(finished.prompt_tokens());
  completion_tokens_.Observe(finished.completion_tokens());
  ++finished_[FinishReasonName(finished.reason())];
}

void GatewayMetrics::GenerationEnded(bool succeeded, absl::Duration latency,
                                     const Usage& usage) {
  absl::MutexLock lock(&mu_);
  --in_progress_;
  tokens_.prompt_tokens += usage.prompt_tokens;
  tokens_.cached_tokens += usage.cached_tokens;
  tokens_.completion_tokens += usage.completion_tokens;
  if (succeeded) latency_.Observe(absl::ToDoubleSeconds(latency));
}

void GatewayMetrics::Answered(absl::string_view endpoint, int http_status) {
  absl::MutexLock lock(&mu_);
  ++answered_[{std::string(endpoint), http_status}];
}

void GatewayMetrics::Append(const Histogram& histogram, absl::string_view name,
                            absl::string_view help, std::string* out) const {
  AppendHead(name, "histogram", help, out);
  int64_t count = 0;
  for (size_t i = 0; i < histogram.counts.size(); ++i) {
    count += histogram.counts[i];
    const std::string bound = i < histogram.bounds.size()
                                  ? absl::StrCat(histogram.bounds[i])
                                  : "+Inf";
    absl::StrAppend(out, name, "_bucket{", label_, ",le=\"", bound, "\"} ",
                    count, "\n");
  }
  absl::StrAppend(out, name, "_sum{", label_, "} ",
                  absl::StrFormat("%.15g", histogram.sum), "\n", name,
                  "_count{", label_, "} ", count, "\n");
}

void GatewayMetrics::AppendAdapters(const v1::Load& load, absl::Time now,
                                    std::string* out) {
  const auto names = [](const auto& counts) {
    std::set<absl::string_view> sorted;
    for (const auto& [name, count] : counts) sorted.insert(name);
    return Quoted(absl::StrJoin(sorted, ","));
  };
  AppendValue(
      "onegrid_lora_requests_info", "gauge",
      "Adapters that requests run and wait with; the value is the time of it.",
      absl::StrCat("max_lora=\"", load.max_adapters(),
                   "\",running_lora_adapters=", names(load.adapter_running()),
                   ",waiting_lora_adapters=", names(load.adapter_queued())),
      absl::StrFormat("%.3f", absl::ToDoubleSeconds(now - absl::UnixEpoch())),
      out);
}

void GatewayMetrics::AppendLoad(const v1::Load& load, std::string* out) const {
  const auto append = [&](absl::string_view name, absl::string_view type,
                          absl::string_view help, auto value) {
    AppendValue(name, type, help, label_, value, out);
  };
  const auto share = [&](int64_t bytes) {
    return load.kv_bytes_limit() > 0
               ? static_cast<double>(bytes) / load.kv_bytes_limit()
               : 0;
  };
  append("onegrid_num_requests_running", "gauge",
         "Requests that the backend computes.", load.running());
  append("onegrid_num_requests_waiting", "gauge",
         "Requests in the backend's queue.", load.queued());
  append("onegrid_kv_cache_usage_perc", "gauge",
         "Share of the memory for keys and values that requests use, 0..1.",
         share(std::max<int64_t>(
             0, load.kv_bytes() - load.idle_prefix_cache_bytes())));
  append("onegrid_prefix_cache_usage_perc", "gauge",
         "Share of the same memory that holds prefixes of earlier requests.",
         share(load.prefix_cache_bytes()));
  append("onegrid_num_preemptions_total", "counter",
         "Times that a request's memory was given to others.",
         load.preemptions());
  append("onegrid_prefix_cache_queries_total", "counter",
         "Tokens of prompts that were looked for in the prefix cache.",
         load.prefix_tokens_asked());
  append("onegrid_prefix_cache_hits_total", "counter",
         "Tokens of prompts that were found in the prefix cache.",
         load.prefix_tokens_restored());
  append("onegrid_spec_decode_num_draft_tokens_total", "counter",
         "Guesses of next tokens that were run.", load.guesses_tried());
  append("onegrid_spec_decode_num_accepted_tokens_total", "counter",
         "Guesses of next tokens that were right.", load.guesses_accepted());
}

void GatewayMetrics::AppendCounters(std::string* out) const {
  AppendHead("onegrid_http_requests_total", "counter",
             "Requests by endpoint and status; 499 is a client that went away.",
             out);
  for (const auto& [key, count] : answered_) {
    absl::StrAppend(out,
                    "onegrid_http_requests_total{endpoint=", Quoted(key.first),
                    ",code=\"", key.second, "\"} ", count, "\n");
  }
  AppendValue("onegrid_gateway_requests_in_progress", "gauge",
              "Requests for generation that came here and are not answered.",
              label_, in_progress_, out);
  AppendValue("onegrid_prompt_tokens_total", "counter", "Tokens of prompts.",
              label_, tokens_.prompt_tokens, out);
  AppendValue("onegrid_prompt_tokens_cached_total", "counter",
              "Tokens of prompts that did not run again.", label_,
              tokens_.cached_tokens, out);
  AppendValue("onegrid_generation_tokens_total", "counter", "Tokens generated.",
              label_, tokens_.completion_tokens, out);
  AppendHead("onegrid_request_success_total", "counter",
             "Answers that came to their end.", out);
  for (const auto& [reason, count] : finished_) {
    absl::StrAppend(out, "onegrid_request_success_total{", label_,
                    ",finished_reason=", Quoted(reason), "} ", count, "\n");
  }
}

void GatewayMetrics::AppendHistograms(std::string* out) const {
  Append(first_token_, "onegrid_time_to_first_token_seconds",
         "From a request to its first token.", out);
  Append(next_tokens_, "onegrid_inter_token_latency_seconds",
         "From tokens of an answer to the next ones.", out);
  Append(latency_, "onegrid_e2e_request_latency_seconds",
         "From a request for generation to the end of its answer.", out);
  Append(queue_, "onegrid_request_queue_time_seconds",
         "That an answer waited in the backend's queue.", out);
  Append(inference_, "onegrid_request_inference_time_seconds",
         "From the queue to the end of an answer.", out);
  Append(prefill_, "onegrid_request_prefill_time_seconds",
         "From the queue to an answer's first token.", out);
  Append(decode_, "onegrid_request_decode_time_seconds",
         "From an answer's first token to its end.", out);
  Append(prompt_tokens_, "onegrid_request_prompt_tokens",
         "Tokens of the prompt of an answer.", out);
  Append(completion_tokens_, "onegrid_request_generation_tokens",
         "Tokens of an answer.", out);
}

std::string GatewayMetrics::Text(const v1::Load* load) const {
  std::string out;
  AppendValue("onegrid_backend_up", "gauge",
              "Whether the backend tells how much it has to do.", label_,
              load == nullptr ? 0 : 1, &out);
  if (load != nullptr) {
    AppendLoad(*load, &out);
    AppendAdapters(*load, absl::Now(), &out);
  }
  absl::MutexLock lock(&mu_);
  AppendCounters(&out);
  AppendHistograms(&out);
  return out;
}

}  // namespace onegrid::gateway
