// The logits that equivalence level 2 compares the served engine with.
//
// File (safetensors, metadata format = "onegrid.probe.v1"): token_ids I32
// [tokens]; sequence_starts I32 [sequences + 1]; and for every position P but
// the first of each sequence, in order, the prediction of its token from those
// before: top_ids I32 [P, 1024] and top_logprobs F32 [P, 1024], natural
// log-probabilities of the float32 forward of the folded model, most likely
// first.
#ifndef SERVICES_FINETUNER_PROBE_H_
#define SERVICES_FINETUNER_PROBE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/finetuner/gemma3_model.h"
#include "services/finetuner/packing.h"
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

// Runs the sequences and writes the file. With as_served the forward simulates
// the inference service's activations and cache (ForwardOptions) instead of
// computing in float32. `progress` is called after each sequence with the
// number done; it returns false to stop (Cancelled).
absl::Status WriteProbe(const Gemma3Model& model, bool as_served,
                        absl::Span<const std::vector<int32_t>> sequences,
                        const std::string& path,
                        const std::function<bool(int64_t)>& progress);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_PROBE_H_
