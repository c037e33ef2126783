// The trainer's probe: what its fake-quant forward predicts for given tokens.
#ifndef SERVICES_EVALUATOR_PROBE_FILE_H_
#define SERVICES_EVALUATOR_PROBE_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/model/safetensors.h"

namespace onegrid::evaluator {

// Most likely tokens recorded per position.
inline constexpr int kProbeTop = 1024;

// A safetensors file with metadata format "onegrid.probe.v1":
//   token_ids        I32 [T]         all sequences, one after another
//   sequence_starts  I32 [S + 1]     first token of each, then T
//   top_ids          I32 [P, 1024]   per scored position, most likely first
//   top_logprobs     F32 [P, 1024]   their natural log-probabilities
// Every position but a sequence's first is scored: P = T - S.
// Thread-safe. Spans live as long as the object.
class ProbeFile {
 public:
  // INVALID_ARGUMENT (CORRUPT_FILE), naming file and tensor, if anything does
  // not fit this description; errors of the reader.
  static absl::StatusOr<std::unique_ptr<ProbeFile>> Open(
      const std::string& path);

  int sequences() const { return static_cast<int>(starts_.size()) - 1; }
  int64_t positions() const {
    return static_cast<int64_t>(tokens_.size()) - sequences();
  }

  // Tokens of sequence s; at least two.
  absl::Span<const int32_t> tokens(int s) const;
  // [tokens(s).size() - 1, 1024] of sequence s.
  absl::Span<const int32_t> top_ids(int s) const;
  absl::Span<const float> top_logprobs(int s) const;

 private:
  ProbeFile() = default;
  absl::Status Check(const std::string& path) const;
  int64_t FirstPosition(int s) const { return starts_[s] - s; }

  std::unique_ptr<model::SafetensorsFile> file_;
  absl::Span<const int32_t> tokens_;
  absl::Span<const int32_t> starts_;
  absl::Span<const int32_t> top_ids_;
  absl::Span<const float> top_logprobs_;
};

}  // namespace onegrid::evaluator

#endif  // SERVICES_EVALUATOR_PROBE_FILE_H_
