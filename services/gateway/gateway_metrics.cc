#include "services/gateway/gateway_metrics.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

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

void AppendValue(absl::string_view name, absl::string_view type,
                 absl::string_view help, absl::string_view label, int64_t value,
                 std::string* out) {
  AppendHead(name, type, help, out);
  absl::StrAppend(out, name, "{", label, "} ", value, "\n");
}

}  // namespace

GatewayMetrics::GatewayMetrics(std::string model_name)
    : label_(absl::StrCat("model_name=", Quoted(model_name))),
      first_token_({0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                    0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                    20,    40,    80,   160,  640,  2560}),
      latency_({0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680}) {}

void GatewayMetrics::Histogram::Observe(double seconds) {
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), seconds);
  ++counts[static_cast<size_t>(bucket - bounds.begin())];
  sum += seconds;
}

void GatewayMetrics::GenerationBegan() {
  absl::MutexLock lock(&mu_);
  ++running_;
}

void GatewayMetrics::FirstToken(absl::Duration after) {
  absl::MutexLock lock(&mu_);
  first_token_.Observe(absl::ToDoubleSeconds(after));
}

void GatewayMetrics::GenerationEnded(bool succeeded, absl::Duration latency,
                                     const Usage& usage) {
  absl::MutexLock lock(&mu_);
  --running_;
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

std::string GatewayMetrics::Text() const {
  absl::MutexLock lock(&mu_);
  std::string out;
  AppendHead("onegrid_http_requests_total", "counter",
             "Requests by endpoint and status; 499 is a client that went away.",
             &out);
  for (const auto& [key, count] : answered_) {
    absl::StrAppend(&out,
                    "onegrid_http_requests_total{endpoint=", Quoted(key.first),
                    ",code=\"", key.second, "\"} ", count, "\n");
  }
  AppendValue("onegrid_num_requests_running", "gauge",
              "Requests for generation in progress.", label_, running_, &out);
  AppendValue("onegrid_prompt_tokens_total", "counter", "Tokens of prompts.",
              label_, tokens_.prompt_tokens, &out);
  AppendValue("onegrid_generation_tokens_total", "counter", "Tokens generated.",
              label_, tokens_.completion_tokens, &out);
  AppendValue("onegrid_prefix_cache_queries_total", "counter",
              "Tokens of prompts that were looked for in the prefix cache.",
              label_, tokens_.prompt_tokens, &out);
  AppendValue("onegrid_prefix_cache_hits_total", "counter",
              "Tokens of prompts that were found in the prefix cache.", label_,
              tokens_.cached_tokens, &out);
  Append(first_token_, "onegrid_time_to_first_token_seconds",
         "From a request to its first token.", &out);
  Append(latency_, "onegrid_e2e_request_latency_seconds",
         "From a request for generation to the end of its answer.", &out);
  return out;
}

}  // namespace onegrid::gateway
