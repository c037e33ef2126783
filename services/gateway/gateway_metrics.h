// What the gateway counts, in Prometheus' text format.
#ifndef SERVICES_GATEWAY_GATEWAY_METRICS_H_
#define SERVICES_GATEWAY_GATEWAY_METRICS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/onegrid/v1/generation.pb.h"
#include "services/gateway/openai_response.h"

namespace onegrid::gateway {

// Names after the prefix "onegrid_", units and buckets are those of vLLM, so
// that a dashboard needs another prefix only. Thread-safe.
class GatewayMetrics {
 public:
  // `model_name`: the label of everything about generation.
  explicit GatewayMetrics(std::string model_name);

  // A request for generation began; each is ended by one GenerationEnded.
  void GenerationBegan();
  // From the request to its first token.
  void FirstToken(absl::Duration after);
  // From tokens to those that came next.
  void NextTokens(absl::Duration after);
  // An answer came to its end in the backend.
  void Finished(const v1::Finished& finished);
  // `latency` is counted when `succeeded`; tokens always.
  void GenerationEnded(bool succeeded, absl::Duration latency,
                       const Usage& usage);
  // Any request was answered. `endpoint` must be one of few.
  void Answered(absl::string_view endpoint, int http_status);

  // text/plain; version=0.0.4. `load`: the backend's at this moment; null if it
  // does not tell, and then nothing is said of it but that it is not up. With
  // it come the three gauges that inference gateways of Kubernetes ask of a
  // model server: requests waiting and running, and the share of KV memory.
  std::string Text(const v1::Load* load) const;

 private:
  struct Histogram {
    explicit Histogram(std::vector<double> b)
        : bounds(std::move(b)), counts(bounds.size() + 1) {}
    void Observe(double value);

    std::vector<double> bounds;   // seconds or tokens, ascending
    std::vector<int64_t> counts;  // of each bucket alone; the last has no bound
    double sum = 0;
  };

  void Append(const Histogram& histogram, absl::string_view name,
              absl::string_view help, std::string* out) const;
  static void AppendAdapters(const v1::Load& load, absl::Time now,
                             std::string* out);
  void AppendLoad(const v1::Load& load, std::string* out) const;
  void AppendCounters(std::string* out) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AppendHistograms(std::string* out) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string label_;  // model_name="..."
  mutable absl::Mutex mu_;
  int64_t in_progress_ ABSL_GUARDED_BY(mu_) = 0;
  Usage tokens_ ABSL_GUARDED_BY(mu_);
  Histogram first_token_ ABSL_GUARDED_BY(mu_);
  Histogram next_tokens_ ABSL_GUARDED_BY(mu_);
  Histogram latency_ ABSL_GUARDED_BY(mu_);
  // Of answers, as the backend tells them.
  Histogram queue_ ABSL_GUARDED_BY(mu_);
  Histogram inference_ ABSL_GUARDED_BY(mu_);
  Histogram prefill_ ABSL_GUARDED_BY(mu_);
  Histogram decode_ ABSL_GUARDED_BY(mu_);
  Histogram prompt_tokens_ ABSL_GUARDED_BY(mu_);
  Histogram completion_tokens_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, int64_t> finished_ ABSL_GUARDED_BY(mu_);  // by reason
  std::map<std::pair<std::string, int>, int64_t> answered_ ABSL_GUARDED_BY(mu_);
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_GATEWAY_METRICS_H_
