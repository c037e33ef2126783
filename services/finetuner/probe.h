// The logits that equivalence level 2 compares the served engine with.
//
// File (safetensors, metadata format = "onegrid.probe.v1"): token_ids I32
// [tokens]; sequence_starts I32 [sequences + 1]; and for every position P but
// the first of each sequence, in order, the prediction of its token from those
// before: top_ids I32 [P, 1024] and top_logprobs F32 [P, 1024], natural
// log-probabilities of the tuned model, most likely first.
#ifndef SERVICES_FINETUNER_PROBE_H_
#define SERVICES_FINETUNER_PROBE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/head_loss.h"
#include "services/finetuner/packing.h"
#include "services/finetuner/served_model.h"
#include "services/model/tokenizer.h"

namespace onegrid::finetuner {

inline constexpr int64_t kProbeTop = 1024;
inline constexpr int64_t kProbeWindow = 512;
inline constexpr int64_t kProbeExamples = 50;

// BOS and the next tokens of `text`, in windows of kProbeWindow tokens until
// `text_tokens` of the text are in, then up to kProbeExamples of `examples`
// without their EOS.
std::vector<std::vector<int32_t>> ProbeSequences(
    const model::Tokenizer& tokenizer, absl::string_view text,
    int64_t text_tokens, absl::Span<const TokenizedExample> examples);

// The `top` most likely next tokens after each token of a sequence but the
// last.
using Predict =
    std::function<TopLogprobs(absl::Span<const int32_t> sequence, int64_t top)>;
// By the float32 forward, and by the arithmetic that is served. The model must
// outlive the result.
Predict PredictInFloat(const GemmaModel& model);
Predict PredictAsServed(const ServedModel& model);

// Runs the sequences and writes the file. `progress` is called after each
// sequence with the number done; it returns false to stop (Cancelled).
absl::Status WriteProbe(const Predict& predict, int64_t vocab,
                        absl::Span<const std::vector<int32_t>> sequences,
                        const std::string& path,
                        const std::function<bool(int64_t)>& progress);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_PROBE_H_
