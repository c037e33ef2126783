// The logic of onegrid.v1.GenerationService, free of gRPC.
#ifndef SERVICES_INFERENCE_GENERATION_SERVICE_H_
#define SERVICES_INFERENCE_GENERATION_SERVICE_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/onegrid/v1/generation.pb.h"
#include "services/inference/adapter_registry.h"
#include "services/inference/adapter_use.h"
#include "services/inference/call_context.h"
#include "services/inference/grammar/output_grammar.h"
#include "services/inference/scheduler.h"
#include "services/inference/score_task.h"
#include "services/model/tokenizer.h"

namespace onegrid::inference {

// Most tokens and candidates per position in ScoreTokens.
inline constexpr int kMaxScoreWidth = 1024;

// Checks requests, runs them through the scheduler, converts results. The
// errors are those listed in generation.proto.
// Thread-safe: each call blocks its own thread.
class GenerationService {
 public:
  // All must outlive the service. `info` is what GetServerInfo returns.
  GenerationService(const model::Tokenizer& tokenizer, Scheduler& scheduler,
                    AdapterRegistry& adapters, v1::ServerInfo info);

  // Calls `write` for each message, in order, from the calling thread. Ends
  // with Cancelled when `write` returns false.
  absl::Status Generate(
      const v1::GenerateRequest& request, const CallContext& context,
      absl::FunctionRef<bool(const v1::GenerateResponse&)> write);

  absl::StatusOr<v1::ScoreTokensResponse> ScoreTokens(
      const v1::ScoreTokensRequest& request, const CallContext& context);

  absl::StatusOr<v1::TokenizeResponse> Tokenize(
      const v1::TokenizeRequest& request) const;

  absl::StatusOr<v1::AdapterInfo> LoadAdapter(
      const v1::LoadAdapterRequest& request);
  absl::Status UnloadAdapter(const v1::UnloadAdapterRequest& request);
  v1::ListAdaptersResponse ListAdapters() const;
  v1::Load GetLoad() const;
  // Generate and ScoreTokens take no more: Unavailable (SERVER_DRAINING).
  void Drain() { scheduler_.Drain(); }

  const v1::ServerInfo& info() const { return info_; }

 private:
  absl::StatusOr<ScoreOptions> ToScoreOptions(
      const v1::ScoreTokensRequest& request) const;

  const model::Tokenizer& tokenizer_;
  Scheduler& scheduler_;
  AdapterRegistry& adapters_;
  AdapterUse adapter_use_;
  const v1::ServerInfo info_;
  grammar::OutputGrammars grammars_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_GENERATION_SERVICE_H_
